"""Sheets of the operations of domain randomisation."""
