"""Statistical shape models of vertebrae."""
