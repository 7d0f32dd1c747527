"""Training of the isolation network."""
