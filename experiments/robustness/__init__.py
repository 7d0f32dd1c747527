"""Measure robustness to errors of cameras, landmarks and masks, and to the views."""
