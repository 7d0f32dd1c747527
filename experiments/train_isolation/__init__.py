"""Train the isolation network."""
