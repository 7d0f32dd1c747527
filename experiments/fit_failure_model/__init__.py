"""Fit the failure model to reconstructions of known error."""
