"""Simulate the hybrid spine robot of Li, Du and Yu (2020)."""
