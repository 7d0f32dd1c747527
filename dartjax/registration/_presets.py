"""Presets of the fits.

All presets compare crops of `CROP_PIXELS` pixels that show `CROP_WIDTH_MM` around a vertebra: the
largest lumbar vertebra with its processes and part of its neighbours. A pixel is 0.86 mm, about the
1 mm voxels of the CTs that the shape models are made from.
"""

import dataclasses
import functools
from collections.abc import Mapping

from dartjax.registration._fit import FitOptions, Scale
from dartjax.registration._objective import ObjectiveWeights
from dartjax.render import local_gradient_ncc, ncc, xvr_similarity

CROP_WIDTH_MM = 110.0
CROP_PIXELS = 128

JOINT = "dartjax"  # joint fit of all vertebrae of a scene
ALONE = "each alone"  # the same objective for one vertebra, without neighbours

# Windows of about 5 mm at the pixel size of each scale (64 and 128 px over the crop).
_COARSE, _FINE = (functools.partial(local_gradient_ncc, window=w, eps=0.03) for w in (3, 7))
_LOCAL = (_COARSE, _FINE)

FIT_OPTIONS: Mapping[str, FitOptions] = {
    "landmarks+masks": FitOptions(similarity=_LOCAL, weights=ObjectiveWeights(similarity=0.0)),
    "ncc": FitOptions(similarity=(ncc,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    "xvr": FitOptions(similarity=(xvr_similarity,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    ALONE: FitOptions(similarity=_LOCAL, crop_width_mm=CROP_WIDTH_MM),
    # More and shorter stages: each starts with the latest state of the neighbours.
    JOINT: FitOptions(
        similarity=(_COARSE, _COARSE, _FINE, _FINE),
        scales=(
            Scale(64, 1.2, 20, 0.08),
            Scale(64, 1.2, 20, 0.05),
            Scale(128, 0.7, 15, 0.04),
            Scale(128, 0.7, 15, 0.03),
        ),
        crop_width_mm=CROP_WIDTH_MM,
    ),
}
"""Options of the fits, by the name of the method in a table.

- `landmarks+masks`: ablation of the images (similarity weight 0). It shows what images add.
- `ncc`: baseline without masks, global NCC (`render.ncc`), a common similarity of 2D/3D
  registration.
- `xvr`: baseline without masks, the multiscale similarity of xvr (Gopalakrishnan et al. 2025,
  arXiv:2503.16309; `render.xvr_similarity`).
- `ALONE`: local gradient NCC, masks and landmarks (`registration.objective`), one vertebra per fit.
- `JOINT`: the objective of `ALONE` for all vertebrae of a scene (`fit_together`), in four stages
  instead of two, because every stage starts with the latest state of the neighbours.

All presets use the landmarks and the shape prior; `JOINT` adds the prior between neighbours and
the shape coupling. All but `JOINT` use the default scales. Windows are 3 px at 64 px and 7 px at
128 px: about 5 mm, the size at which a window contains one edge. The weights, `shape_coupling`, the
learning rates and the windows were chosen by mean surface distance on 42 vertebrae of three
SynthVerSe subjects, for whom no result is reported: other values gave no improvement beyond the
standard error (docs/results/reconstruction.md).
"""

# `JOINT` on images that show one vertebra each: from the start, and from an earlier result.
FIT_ISOLATED = dataclasses.replace(FIT_OPTIONS[JOINT], neighbours_rendered=False)
REFINE_ISOLATED = dataclasses.replace(
    FIT_ISOLATED, similarity=FIT_ISOLATED.similarity[2:], scales=FIT_ISOLATED.scales[2:]
)
