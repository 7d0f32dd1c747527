"""Build a set of shape models and measure how good it is."""
