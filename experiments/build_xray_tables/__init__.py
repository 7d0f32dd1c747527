"""Compute the packaged tables of X-ray physics."""
