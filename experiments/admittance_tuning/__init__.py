"""Tune the damping rules by an evolution strategy."""
