"""Needle paths through the pedicles and their grades."""
