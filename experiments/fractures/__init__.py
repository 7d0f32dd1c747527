"""Fractured vertebrae, fitted with the fracture modes off and on."""
