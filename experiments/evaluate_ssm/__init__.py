"""The best fit of the shape models to every vertebra of a folder."""
