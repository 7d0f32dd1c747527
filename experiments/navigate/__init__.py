"""Simulate two-plane navigation of wires in pedicles."""
