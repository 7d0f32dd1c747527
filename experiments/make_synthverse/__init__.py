"""Make a cohort of synthetic subjects."""
