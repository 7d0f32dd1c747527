"""Look at a cohort of CTs: what is in it, and whether it leaks into another."""
