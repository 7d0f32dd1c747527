"""Distal locking of a nail with a bone-mounted robot."""
