"""Evaluate trained networks on unseen subjects."""
