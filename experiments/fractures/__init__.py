"""Fit fractured vertebrae with the fracture modes off and on."""
