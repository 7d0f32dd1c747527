"""Evaluate the realism of simulated radiographs."""
