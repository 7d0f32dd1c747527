"""Make a data set of simulated radiographs."""
