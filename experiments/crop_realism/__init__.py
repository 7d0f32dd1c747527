"""Compare crops of synthetic radiographs with those of real CTs."""
