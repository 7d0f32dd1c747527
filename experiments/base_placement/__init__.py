"""Place the base of the hybrid robot next to a patient."""
