"""Fit the scatter kernel of the X-ray simulator."""
