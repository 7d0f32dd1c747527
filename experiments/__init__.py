"""Experiments: one thin absl main per job."""
