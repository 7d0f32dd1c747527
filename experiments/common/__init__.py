"""Code and settings shared by several experiments."""
