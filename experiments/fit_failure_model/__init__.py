"""Fit of the failure model to answers of known error."""
