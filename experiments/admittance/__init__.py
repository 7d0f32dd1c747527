"""Compare damping laws of a robot that is guided by hand."""
