"""Train the multi-view similarity network."""
