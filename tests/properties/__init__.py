"""Properties that whole groups of public functions share."""
