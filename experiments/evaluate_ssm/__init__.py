"""Evaluate shape models by their best fit to every vertebra of a folder."""
