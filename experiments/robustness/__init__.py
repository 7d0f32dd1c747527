"""Robustness curves: reconstructions against cameras, views, landmarks and masks."""
