"""Centroids of the vertebrae of a cohort's scan."""

from typing import cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from dartjax._errors import DataError
from dartjax.data.cohorts._subject import Subject
from dartjax.data.formats import Centroids, read_centroids


def load_centroids(subject: Subject) -> Centroids:
    """Centroid of every vertebra of a scan's file by level, head to foot, in world RAS+ mm.

    Only the CT's header is read. DataError without a file (`mask_centroids` needs none), and as
    `read_centroids`.
    """
    if subject.centroids_path is None:
        raise DataError(
            f"subject {subject.id}: no centroid file (*_ctd.json) beside {subject.mask_path}: add "
            "it, or use the centroids of the mask (dartjax.data.mask_centroids)"
        )
    try:
        image = cast(SpatialImage, nib.load(subject.ct_path))
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise DataError(f"{subject.ct_path}: not a readable NIfTI file ({error})") from error
    affine = np.asarray(image.affine, np.float64)
    return read_centroids(subject.centroids_path, image.shape[:3], affine)
