"""Fitting a shape model to X-rays."""
