"""Tiny NIfTI cohorts: a ring of bone with a label, cheap to write and to read."""

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (40, 40, 40)
AFFINE = np.diag([1.5, 1.5, 1.5, 1.0])


def ring(shape=SHAPE, center=(20, 20, 20), radii=(9.0, 6.0)):
    """A thick ring about the third axis (genus 1), as a boolean array, about 20 cm3."""
    i, j, k = np.ogrid[tuple(slice(n) for n in shape)]
    axial = np.hypot(i - center[0], j - center[1])
    return (axial - radii[0]) ** 2 + (k - center[2]) ** 2 < (0.5 * radii[1]) ** 2 * 2.0


def hounsfield(bone):
    """Air, soft tissue and bone, with a gradient so that no two slices are alike."""
    hu = np.where(bone, 400, 40).astype(np.int16)
    hu[0] = -1000
    return hu + np.arange(bone.shape[1], dtype=np.int16)[None, :, None]


def save(path: Path, array, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def save_subject(root: Path, name: str, labels, affine=AFFINE) -> None:
    """One BIDS subject below `root`."""
    folder = f"sub-{name.split('_', maxsplit=1)[0]}"
    save(root / "rawdata" / folder / f"sub-{name}_ct.nii.gz", hounsfield(labels > 0), affine)
    mask = root / "derivatives" / folder / f"sub-{name}_seg-vert_msk.nii.gz"
    save(mask, labels.astype(np.uint8), affine)
    (mask.parent / f"sub-{name}_seg-subreg_ctd.json").write_text("[]")
