"""Build the template mesh of all shape models."""
