"""Distal locking of an intramedullary nail with a bone-mounted robot."""
