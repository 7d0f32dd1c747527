"""Evaluate the failure model: prediction of failures, intervals, repair."""
