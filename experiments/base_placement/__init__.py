"""Where to stand the hybrid robot beside a patient."""
