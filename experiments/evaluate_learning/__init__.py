"""What trained networks are worth on subjects they have not seen."""
