"""Load the vertebra centroids of a scan of a cohort."""

import numpy as np

from dartjax._errors import DataError
from dartjax.data.cohorts._subject import Subject
from dartjax.data.formats import Centroids, open_nifti, read_centroids


def load_centroids(subject: Subject) -> Centroids:
    """Load the centroids of a scan by level, from head to foot, in world RAS+ mm.

    Of the CT, only the header is read. DataError if the scan has no centroid file
    (`mask_centroids` needs none), and as for `read_centroids`.
    """
    if subject.centroids_path is None:
        raise DataError(
            f"subject {subject.id}: no centroid file (*_ctd.json) next to {subject.mask_path}: "
            "add it, or use the centroids of the mask (dartjax.data.mask_centroids)"
        )
    with open_nifti(subject.ct_path, to_the_end=False) as image:
        shape, affine = image.shape[:3], np.asarray(image.affine, np.float64)
    return read_centroids(subject.centroids_path, shape, affine)
