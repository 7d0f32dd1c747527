"""The search for the damping rules."""
