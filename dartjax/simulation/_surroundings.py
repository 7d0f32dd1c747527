"""What surrounds the vertebrae of a CT in a simulated radiograph."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from dartjax import data, synthverse
from dartjax.image import Volume
from dartjax.simulation._ground_truth import TrueVertebra

Surroundings = Literal["none", "synthetic"]


def scene_volume(
    case: data.Case,
    truths: Sequence[TrueVertebra],
    surroundings: Surroundings = "none",
    seed: int = 0,
) -> Volume:
    """Return the attenuation from which the radiographs of a case are simulated, world frame.

    `none` is the CT itself. `synthetic` places its complete vertebrae, with the tissue around them,
    into a synthetic body (`synthverse.body_around`), for CTs that are cropped to the spine. It
    needs at least one of the truths.
    """
    if surroundings == "none":
        return case.ct
    frames = {t.level: np.asarray(t.pose.as_matrix(), np.float64) for t in truths}
    return synthverse.body_around(case, frames, seed)
