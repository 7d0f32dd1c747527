"""Build a set of shape models and measure its quality."""
