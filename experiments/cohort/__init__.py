"""Inspect a cohort of CTs and find leaks into other data."""
