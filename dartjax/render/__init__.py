"""X-ray rendering: Gaussian splatting of surfaces, ray-cast DRRs and image similarities."""
