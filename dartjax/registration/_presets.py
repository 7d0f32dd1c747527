"""Named settings of the fits: what each is for, and why its numbers are what they are.

All compare crops of `CROP_PIXELS` pixels that show `CROP_WIDTH_MM` about a vertebra: the largest
lumbar vertebra with its processes and some of its neighbours, at .86 mm a pixel, a little coarser
than the 1 mm voxels of the CTs that the shape models are made from.

`OURS` and `ALONE` share one objective. Its weights, window sizes and learning rates were compared
with others on three subjects of SynthVerSe, on whom no result is reported, by surface distance
(docs/results.md); the other presets are the classical baselines of a table, with the same start,
landmarks and prior.
"""

import dataclasses
import functools
from collections.abc import Mapping

from dartjax.registration._fit import FitOptions, Scale
from dartjax.registration._objective import ObjectiveWeights
from dartjax.render import local_gradient_ncc, ncc, xvr_similarity

CROP_WIDTH_MM = 110.0
CROP_PIXELS = 128

OURS = "dartjax"  # all vertebrae of a scene together
ALONE = "each alone"  # the same objective, without neighbours

# Windows of about 5 mm at the pixel size of each scale (64 and 128 px over the crop).
_COARSE, _FINE = (functools.partial(local_gradient_ncc, window=w, eps=0.03) for w in (3, 7))
_LOCAL = (_COARSE, _FINE)

FIT_OPTIONS: Mapping[str, FitOptions] = {
    "landmarks+masks": FitOptions(similarity=_LOCAL, weights=ObjectiveWeights(similarity=0.0)),
    "ncc": FitOptions(similarity=(ncc,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    "xvr": FitOptions(similarity=(xvr_similarity,) * 2, weights=ObjectiveWeights(silhouette=0.0)),
    ALONE: FitOptions(similarity=_LOCAL, crop_width_mm=CROP_WIDTH_MM),
    # Every stage begins with what the neighbours have become: more and shorter stages.
    OURS: FitOptions(
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

# `OURS` on images that show one vertebra each: from the start, and from an answer.
SHOWN_ALONE = dataclasses.replace(FIT_OPTIONS[OURS], neighbours_rendered=False)
REFINED_ALONE = dataclasses.replace(
    SHOWN_ALONE, similarity=SHOWN_ALONE.similarity[2:], scales=SHOWN_ALONE.scales[2:]
)
