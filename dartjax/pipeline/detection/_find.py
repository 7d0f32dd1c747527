"""From radiographs to the observations and starts of the vertebrae that they show."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dartjax import anatomy, data
from dartjax._progress import Progress, no_progress
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.observations import NUM_LANDMARKS, Detection
from dartjax.pipeline._networks import landmark_folder
from dartjax.pipeline.detection._detect import DETECTED, DOUBTFUL, ViewDetections, detect
from dartjax.pipeline.detection._landmarks import with_landmarks
from dartjax.pipeline.detection._levels import NamedLevels, name_levels
from dartjax.pipeline.detection._match import MatchedVertebra, match, sums_of_levels
from dartjax.pipeline.detection._poses import curve_poses
from dartjax.ssm import SpinePrior
from dartjax.transforms import SE3

_LEAST_ANGLE_DEG = 8.0  # below it, depth is a matter of luck
_A_SPINE = 3  # vertebrae that are found in a negative only if it is the true image


@dataclasses.dataclass(frozen=True)
class FoundSpine:
    """Vertebrae found in a set of views, by level from head to foot, and what was left out.

    `named` is false if the levels are uncertain: then a level only chooses the shape model."""

    detections: Mapping[str, Detection]
    starts: Mapping[str, SE3]
    probability: Mapping[str, float]  # of each level's name
    matched: Mapping[str, MatchedVertebra]  # also those of levels without a shape model
    named: bool
    warnings: tuple[str, ...]
    views: tuple[ViewDetections, ...]


def find_spine(
    radiographs: Sequence[Radiograph],
    *,
    levels: Collection[str] | None = None,
    weights: str | None = None,
    landmarks: str | None = None,
    exclude: Sequence[str] = (),
    progress: Progress = no_progress,
) -> FoundSpine:
    """Find the vertebrae that at least two of the radiographs show.

    `levels` limits the names; `weights` and `landmarks` are folders of the detector and of the
    landmark network (None: the packaged ones, if there are any); `exclude` are people whom the
    population's prior must not have seen. DataError, with the reason, if no vertebra can be
    reconstructed: no spine in a view, one view only, or views that do not agree.
    """
    views = [radiograph.camera for radiograph in radiographs]
    _check_views(views)
    with progress("detection", len(radiographs)) as step:
        found = detect(radiographs, weights=weights, least_score=DOUBTFUL, step=step)
    _check_found(found, radiographs, weights)
    prior = data.load_spine_prior(exclude=exclude)
    matched = match(found, views, prior)
    if not matched:
        raise data.DataError(
            "the vertebrae found in the views do not belong together: check that the cameras are "
            "those of these radiographs, in one frame, and that the radiographs show one patient"
        )
    centers = np.stack([each.center for each in matched])
    try:
        names = name_levels(sums_of_levels(matched, found), centers, prior, allowed=levels)
    except ValueError as error:
        raise data.DataError(f"{error}: give all levels that may be in view, or none") from error
    detections = [_detection(vertebra, found, views) for vertebra in matched]
    if (folder := landmark_folder(landmarks)) is not None:
        with progress("landmarks") as step:
            detections = with_landmarks(radiographs, detections, centers, weights=folder, step=step)
    return _spine_of(matched, names, centers, found, detections, prior)


def _spine_of(
    matched: Sequence[MatchedVertebra],
    names: NamedLevels,
    centers: Float[np.ndarray, "n 3"],
    found: Sequence[ViewDetections],
    detections: Sequence[Detection],
    prior: SpinePrior,
) -> FoundSpine:
    poses = curve_poses(names.levels, centers, prior)
    kept = [i for i, level in enumerate(names.levels) if level in anatomy.MODELLED_LEVELS]
    warnings = _warnings(matched, names, found)
    return FoundSpine(
        detections={names.levels[i]: detections[i] for i in kept},
        starts={names.levels[i]: poses[i] for i in kept},
        probability={names.levels[i]: float(names.each[i]) for i in kept},
        matched=dict(zip(names.levels, matched, strict=True)),
        named=names.reliable,
        warnings=tuple(warnings),
        views=tuple(found),
    )


def _check_views(views: Sequence[Camera]) -> None:
    if len(views) < 2:
        raise data.DataError(
            "one radiograph does not give the depth of a vertebra: give two or more, at least "
            f"{data.MIN_ANGLE_DEG:.0f} degrees apart, or the starts of the vertebrae"
        )
    pairs = itertools.combinations(views, 2)
    largest = max(data.angle_from_parallel(data.angle_between(a, b)) for a, b in pairs)
    if largest < _LEAST_ANGLE_DEG:
        raise data.DataError(
            f"all radiographs are taken along the same line (within {largest:.0f} degrees), which "
            "does not give the depth of a vertebra: add one from another side, or check the cameras"
        )


def _check_found(
    found: Sequence[ViewDetections], radiographs: Sequence[Radiograph], weights: str | None
) -> None:
    empty = [k for k, each in enumerate(found) if not (each.score >= DETECTED).any()]
    if len(found) - len(empty) >= 2:
        return
    negatives = [Radiograph(-radiographs[k].image, radiographs[k].camera) for k in empty]
    bright = [len(each) >= _A_SPINE for each in detect(negatives, weights=weights)]
    if any(bright):
        raise data.DataError(
            f"no vertebra was found in radiograph {empty[bright.index(True)] + 1}, but in its "
            'negative: if bone is dark in it, read it with pixels="intensity"'
        )
    raise data.DataError(
        f"no vertebra was found in radiograph {', '.join(str(k + 1) for k in empty)}: it must "
        "show a spine, with the head up"
    )


def _warnings(
    matched: Sequence[MatchedVertebra], names: NamedLevels, found: Sequence[ViewDetections]
) -> list[str]:
    warnings = []
    for k, each in enumerate(found):
        taken = {vertebra.index[k] for vertebra in matched}
        sure = set(np.flatnonzero(each.score >= DETECTED).tolist())
        if missing := len(sure - taken):
            warnings.append(
                f"radiograph {k + 1}: {missing} of {len(sure)} vertebrae have no partner in "
                "another radiograph and are not reconstructed"
            )
    if not names.reliable:
        first, last = names.levels[0], names.levels[-1]
        warnings.append(
            f"the levels are uncertain: the vertebrae are most likely {first} to {last} "
            f"(probability {names.probability:.2f}); give levels to fix them"
        )
    return warnings


def _detection(
    vertebra: MatchedVertebra, found: Sequence[ViewDetections], views: Sequence[Camera]
) -> Detection:
    """Make the detection of one vertebra: the detector's masks, and no landmarks."""
    count = len(views)
    return Detection(
        landmarks=np.zeros((count, NUM_LANDMARKS, 2)),
        sigma=np.full((count, NUM_LANDMARKS), np.inf),
        masks=tuple(
            found[k].mask_of(i, view)
            for k, (i, view) in enumerate(zip(vertebra.index, views, strict=True))
        ),
    )
