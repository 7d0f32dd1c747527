"""Train the detector of vertebrae."""
