"""Vertebrae in 3D from two X-rays, graded against the CT where there is one."""
