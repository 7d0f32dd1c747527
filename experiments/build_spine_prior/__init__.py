"""Estimate the prior of the whole spine from annotated scans."""
