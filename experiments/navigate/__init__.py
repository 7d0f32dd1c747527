"""Wires in pedicles by two-plane navigation."""
