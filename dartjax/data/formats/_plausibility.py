"""Compare the values of a CT or a mask with physics and anatomy.

Water is near 0 HU and air near -1000, vertebrae follow each other from head to foot, and the header
says where left and right are. A file that contradicts this is refused, a doubtful one warned of.
"""

import nibabel as nib
import numpy as np
from jaxtyping import Float, Num, UInt8
from nibabel.spatialimages import HeaderDataError, SpatialImage
from scipy import ndimage

from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL, SACRUM_LABELS, Numbering

LOWEST_HU = -1024.0  # lower values are padding outside the field of view
SURE_AIR_HU = -900.0
MAX_SHIFTED_SHARE = 0.2  # of the voxels at 900 to 1200, where HU + 1024 has soft tissue
MAX_CLIPPED_SHARE = 0.01  # of the voxels at one value, the lower end of a window
MAX_GAP_MM = 1.0  # between the voxel positions of sform and qform
_HEAD_TO_FOOT = (*LABEL_OF_LEVEL.values(), *SACRUM_LABELS)
UPWARD_LABELS = (
    "read as VerSe labels (C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25), the vertebrae run from foot "
    "to head: the mask is numbered upward, as by TotalSegmentator (L5 = 18 to C1 = 41 in version "
    "1, L5 = 27 to C1 = 50 in version 2), or its affine is upside down: read it with "
    "labels=totalsegmentator_v1 or labels=totalsegmentator"
)
_UPWARD_ELSE = (
    "read with labels={}, the vertebrae run from foot to head: the mask has another numbering, or "
    "its affine is upside down"
)


def check_hounsfield(where: str, hu: Num[np.ndarray, "i j k"]) -> None:
    """Raise DataError unless the values are Hounsfield units; values below -1024 are padding."""
    low, high = float(hu.min()), float(hu.max())
    if low >= high:
        raise DataError(f"{where}: not a CT, because every voxel is {low:g}")
    lowest = float(np.min(hu, where=hu >= LOWEST_HU, initial=high))
    if lowest >= -50.0 or _is_shifted(hu):
        hint = "subtract 1024" if high > 1000.0 else "store it in Hounsfield units"
        raise DataError(
            f"{where}: values {low:g} to {high:g} are not Hounsfield units (air -1000, fat -100, "
            f"water 0, bone above 200): {hint}"
        )
    if high <= 150.0:
        raise DataError(
            f"{where}: not a CT in Hounsfield units: the largest value is {high:g}, but bone is "
            "above 200 HU"
        )


def doubt_about_window(hu: Num[np.ndarray, "i j k"]) -> str:
    """Return a sentence if a CT was clipped to a window above air, so that its air attenuates."""
    lowest = float(np.min(hu, where=hu >= LOWEST_HU, initial=float(hu.max())))
    clipped = float(np.mean(hu == lowest))
    if lowest <= SURE_AIR_HU or clipped <= MAX_CLIPPED_SHARE:
        return ""
    return (
        f"{clipped:.0%} of the voxels are exactly {lowest:g} HU, as in a CT clipped to a window: "
        "air attenuates and simulated X-rays are too dense; use the unclipped CT"
    )


def _is_shifted(hu: Num[np.ndarray, "i j k"]) -> bool:
    """Recognise HU + 1024 with padding: above the padding nothing is air, lung or fat, and much is
    where soft tissue would be."""
    inside = hu[hu > max(float(hu.min()), LOWEST_HU)]
    if not inside.size or inside.min() < -50.0:
        return False
    return float(np.mean((inside >= 900.0) & (inside <= 1200.0))) > MAX_SHIFTED_SHARE


def doubt_about_orientation(image: SpatialImage) -> str:
    """Return a sentence if a NIfTI header has no orientation, or two that disagree by over 1 mm."""
    if not isinstance(image, nib.Nifti1Image):
        return ""
    sform, sform_code = image.get_sform(coded=True)
    try:
        qform, qform_code = image.get_qform(coded=True)
    except (ValueError, HeaderDataError):
        return "the header's qform is damaged; the sform is used: check left and right"
    if not sform_code and not qform_code:
        return (
            "the header has no orientation (sform and qform code 0): left and right, and the "
            "position in the world, are only assumed; restore them from the original"
        )
    if not sform_code or not qform_code:
        return ""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in image.shape[:3]], [1])).reshape(4, -1)
    gap = float(np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max())
    if gap <= MAX_GAP_MM:
        return ""
    return (
        f"the header's sform and qform put voxels up to {gap:.1f} mm apart; the sform is used: "
        "check left and right, and store one of them in both"
    )


def runs_upward(labels: UInt8[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"]) -> bool:
    """Return whether at least half of the steps from a label to the next one lead toward the head.

    The order is that of VerSe's numbers from head to foot, with the sacrum last.
    """
    boxes = ndimage.find_objects(labels)
    present = [n for n in _HEAD_TO_FOOT if n <= len(boxes) and boxes[n - 1] is not None]
    heights = []
    for label in present:
        box = boxes[label - 1]
        center = np.argwhere(labels[box] == label).mean(0) + [side.start for side in box]
        heights.append(affine[2, :3] @ center)
    steps = np.diff(heights)
    return len(steps) > 0 and 2 * int((steps > 0.0).sum()) >= len(steps)


def check_order(
    where: str,
    labels: UInt8[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    numbering: Numbering = "verse",
) -> None:
    """Raise DataError for labels (VerSe, translated from `numbering`) from foot to head."""
    if runs_upward(labels, affine):
        text = UPWARD_LABELS if numbering == "verse" else _UPWARD_ELSE.format(numbering)
        raise DataError(f"{where}: {text}")
