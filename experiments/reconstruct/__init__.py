"""Reconstruct vertebrae from two X-rays and grade them against the CT, if there is one."""
