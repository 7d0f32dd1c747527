"""Draw the operations of domain randomisation."""
