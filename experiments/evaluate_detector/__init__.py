"""Evaluate the detector and the landmark network."""
