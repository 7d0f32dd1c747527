"""Realism of simulated radiographs."""
