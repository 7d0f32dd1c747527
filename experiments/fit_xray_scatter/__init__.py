"""Fit of the scatter kernel of the X-ray simulator."""
