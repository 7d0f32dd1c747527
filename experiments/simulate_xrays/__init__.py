"""Making of a data set of simulated radiographs."""
