"""Read CTs and label images from NIfTI files, with their full affines.

The world is the file's own RAS+ frame in mm. Oblique, flipped and anisotropic grids are kept:
images are not recentred, reoriented or resampled.
"""

import contextlib
import gzip
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import nibabel as nib
import numpy as np
from jaxtyping import Float, Int16, Num, Shaped, UInt8
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError
from scipy import ndimage

from dartjax._arrays import PathLike
from dartjax._errors import DataError
from dartjax.anatomy import LEVEL_OF_LABEL, SACRUM_LABELS, Numbering, verse_label_table
from dartjax.data.formats._plausibility import (
    check_hounsfield,
    check_order,
    doubt_about_orientation,
    doubt_about_window,
)
from dartjax.image import Volume

MU_WATER = 0.0192  # 1/mm at about 70 keV
HU_RANGE = (-1024, 3071)
_MAX_LABEL = 255
_VERSE_LABELS = frozenset((*LEVEL_OF_LABEL, *SACRUM_LABELS))
_NAMES = {
    "verse": "VerSe labels (C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25, T13 = 28)",
    "totalsegmentator": "labels of TotalSegmentator 2 (1 to 117)",
    "totalsegmentator_v1": "labels of TotalSegmentator 1 (1 to 104)",
}
LABEL_ROUNDING = 0.01  # a scale factor in the header gives 19.9999 for 20

_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, OverflowError, MemoryError, zlib.error),
    *(ImageFileError, HeaderDataError, WrapStructError),
)
_MOST_COMPRESSED = 1100  # gzip reduces a file at most by this factor
_PART = 1 << 20
_NIFTI2_HEADER = 540  # bytes


def hu_to_attenuation(hu: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Convert Hounsfield units to linear attenuation in 1/mm: mu_water (1 + HU / 1000), at least 0.

    HU outside [-1024, 3071], such as padding and metal, are clipped first.
    """
    relative = np.clip(hu, *HU_RANGE).astype(np.float32)
    relative *= np.float32(MU_WATER / 1000.0)
    relative += np.float32(MU_WATER)
    return np.maximum(relative, 0.0, out=relative)


def load_ct(path: PathLike) -> Volume:
    """Load a CT in Hounsfield units (NIfTI) as a volume of linear attenuation, 1/mm, float32.

    DataError for a missing, damaged or 4D file, a singular affine, NaN voxels, and values that are
    not HU, such as HU + 1024. A warning for a header without orientation or with two that
    disagree, and for a CT clipped to a window above air.
    """
    hu, affine = read_hu(path)
    return to_volume(hu, affine)


def load_labels(
    path: PathLike, *, labels: Numbering = "verse"
) -> tuple[UInt8[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]]:
    """Load vertebra labels (NIfTI) as VerSe numbers, and the affine world_from_voxel.

    `labels` is the numbering of the file: "verse", "totalsegmentator" (version 2) or
    "totalsegmentator_v1"; their other structures become background, and so do sacrum and coccyx.
    Values within 0.01 of a whole number, as a scaled file gives, are rounded. DataError as for
    `load_ct`, for other values than those of the numbering, and for vertebrae numbered from foot
    to head, which are read with the wrong numbering.
    """
    table = verse_label_table(labels)
    values, affine = _read(path)
    if np.issubdtype(values.dtype, np.floating):
        values = _whole_labels(path, values)
    if values.min() < 0 or values.max() > _MAX_LABEL:
        found = f"values {values.min():g} to {values.max():g}"
        raise DataError(f"{path}: {found} are not {_NAMES[labels]}")
    verse = values.astype(np.uint8)
    foreign = [n for n in present_labels(verse) if n >= len(table)]
    if labels == "verse":
        foreign = [n for n in present_labels(verse) if n not in _VERSE_LABELS]
    if foreign:
        raise DataError(
            f"{path}: values {foreign[:8]} are not {_NAMES[labels]}: name the numbering "
            "of the mask (labels=totalsegmentator or totalsegmentator_v1), or translate it first"
        )
    if labels != "verse":
        verse = table[verse]
    check_order(str(path), verse, affine, labels)
    for sacrum in set(SACRUM_LABELS) & set(present_labels(verse)):
        verse[verse == sacrum] = 0
    return verse, affine


def _whole_labels(path: PathLike, values: Num[np.ndarray, "i j k"]) -> Num[np.ndarray, "i j k"]:
    whole = np.rint(values)
    if np.abs(values - whole).max() > LABEL_ROUNDING:
        raise DataError(f"{path}: labels must be whole numbers, but this image holds fractions")
    return whole


def present_labels(labels: UInt8[np.ndarray, "i j k"]) -> list[int]:
    """Find the labels other than 0 in an image, ascending.

    This uses bounding boxes, because counting every voxel of a whole-body CT takes seconds.
    """
    boxes = ndimage.find_objects(labels)
    return [label + 1 for label, box in enumerate(boxes) if box is not None]


def read_hu(path: PathLike) -> tuple[Int16[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]]:
    """Read the HU of a CT, rounded and clipped to [-1024, 3071], and its affine.

    DataError as for `load_ct`.
    """
    hu, affine = _read(path)
    check_hounsfield(str(path), hu)
    _warn(path, doubt_about_window(hu))
    return whole_hu(hu), affine


def whole_hu(hu: Num[np.ndarray, "i j k"]) -> Int16[np.ndarray, "i j k"]:
    """Round HU and clip them to [-1024, 3071]."""
    clipped = np.clip(hu, *HU_RANGE)
    return (np.rint(clipped) if np.issubdtype(hu.dtype, np.floating) else clipped).astype(np.int16)


def to_volume(hu: Num[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]) -> Volume:
    """Build a volume of attenuation from HU and world_from_voxel."""
    return Volume(jnp.asarray(hu_to_attenuation(hu)), jnp.asarray(affine, jnp.float32))


def check_same_grid(
    ct: tuple[PathLike, tuple[int, ...], Float[np.ndarray, "4 4"]],
    mask: tuple[PathLike, tuple[int, ...], Float[np.ndarray, "4 4"]],
) -> None:
    """Raise DataError unless two (path, shape, affine) have the same grid within 0.1 mm."""
    (ct_path, ct_shape, ct_affine), (mask_path, mask_shape, mask_affine) = ct, mask
    remedy = "resample the mask onto the CT's grid"
    if ct_shape != mask_shape:
        raise DataError(
            f"{mask_path}: the mask has {mask_shape} voxels but the CT {ct_path} has "
            f"{ct_shape}: {remedy}"
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in ct_shape], [1])).reshape(4, -1)
    gap = np.linalg.norm(((ct_affine - mask_affine) @ corners)[:3], axis=0).max()
    if gap > 0.1:
        raise DataError(
            f"{mask_path}: the mask lies up to {gap:.1f} mm from the CT {ct_path} "
            f"(their affines differ): {remedy}"
        )


def _read(path: PathLike) -> tuple[Num[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]]:
    with open_nifti(path) as image:
        values = _values_of(image)
        affine = _checked_affine(path, image)
        doubt = doubt_about_orientation(image)
    _warn(path, doubt)
    return _checked_values(path, values), affine


@contextlib.contextmanager
def open_nifti(path: PathLike, *, to_the_end: bool = True) -> Iterator[SpatialImage]:
    """Open a NIfTI file; its values are read where they are used, inside the `with`.

    DataError for a missing file, and for one that turns out to be damaged. nibabel does not reach
    the checksum of a .gz file; it is checked when the block ends, unless `to_the_end` is False.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        if Path(path).suffix.lower() == ".gz":
            with gzip.open(path) as file:
                yield _compressed(path, file)
                while to_the_end and file.read(_PART):
                    pass
        else:
            yield cast(SpatialImage, nib.load(path))
    except DataError:
        raise
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable NIfTI file, truncated or damaged ({error}): fetch it again"
        ) from error


def _compressed(path: PathLike, file: gzip.GzipFile) -> SpatialImage:
    size = file.read(4)
    file.seek(0)
    is_second = _NIFTI2_HEADER in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
    kind = nib.Nifti2Image if is_second else nib.Nifti1Image
    holder = nib.FileHolder(fileobj=cast(Any, file))
    image = kind.from_file_map({"header": holder, "image": holder})
    needed = math.prod(map(int, image.shape)) * np.dtype(image.get_data_dtype()).itemsize
    if needed > _MOST_COMPRESSED * os.path.getsize(path):
        raise ValueError(f"it is too short for {image.shape} voxels")
    return cast(SpatialImage, image)


def _warn(path: PathLike, doubt: str) -> None:
    if doubt:
        warnings.warn(f"{path}: {doubt}", stacklevel=4)


def _values_of(image: SpatialImage) -> Shaped[np.ndarray, "..."]:
    """Read the stored values; scaled ones as float32, with half of nibabel's memory and time."""
    data = cast(ArrayProxy, image.dataobj)
    if (data.slope, data.inter) == (1.0, 0.0):
        return np.asanyarray(data)
    return np.asarray(data, np.float32)


def _checked_affine(path: PathLike, image: SpatialImage) -> Float[np.ndarray, "4 4"]:
    affine = np.array(image.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path}: the affine is singular, so voxels have no position in the world: "
            "repair the header's sform or qform"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() < 0.02 or spacing.max() > 20.0:
        raise DataError(
            f"{path}: voxels of {np.round(spacing, 5).tolist()} mm are not plausible: "
            "the affine must be in millimetres"
        )
    return affine


def _checked_values(path: PathLike, values: Shaped[np.ndarray, "..."]) -> Num[np.ndarray, "i j k"]:
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or 0 in values.shape:
        raise DataError(f"{path}: one 3D image is needed, this one has shape {values.shape}")
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise DataError(f"{path}: voxels of type {values.dtype} are not numbers")
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: {count} voxels are NaN or infinite: fill them (air is -1000)")
    return values
