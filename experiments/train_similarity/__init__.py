"""Training of the multi-view similarity."""
