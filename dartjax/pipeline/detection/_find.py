"""From radiographs to the observations and starts of the vertebrae that they show."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import anatomy, data
from dartjax import camera as cameras
from dartjax._progress import Progress, no_progress
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.observations import NUM_LANDMARKS, Detection
from dartjax.pipeline.detection._detect import ViewDetections, detect
from dartjax.pipeline.detection._levels import NamedLevels, name_levels
from dartjax.pipeline.detection._match import MatchedVertebra, match, sums_of_levels
from dartjax.pipeline.detection._poses import curve_poses
from dartjax.transforms import SE3

_GROWN = 0.15  # of a box at every side, for the window of its mask


@dataclasses.dataclass(frozen=True)
class FoundSpine:
    """Vertebrae found in a set of views, by level from head to foot, and what was left out.

    `named` is false if the levels are uncertain: then a level only chooses the shape model."""

    detections: Mapping[str, Detection]
    starts: Mapping[str, SE3]
    probability: Mapping[str, float]  # of each level's name
    named: bool
    warnings: tuple[str, ...]
    views: tuple[ViewDetections, ...]


def find_spine(
    radiographs: Sequence[Radiograph],
    *,
    levels: Collection[str] | None = None,
    weights: str | None = None,
    exclude: Sequence[str] = (),
    progress: Progress = no_progress,
) -> FoundSpine:
    """Find the vertebrae that at least two of the radiographs show.

    `levels` limits the names; `exclude` are people whom the population's prior must not have seen.
    DataError, with the reason, if no vertebra can be reconstructed: no spine in a view, one view
    only, or views that do not agree.
    """
    views = [radiograph.camera for radiograph in radiographs]
    with progress("detection", len(radiographs)) as step:
        found = detect(radiographs, weights=weights, step=step)
    _check_found(found)
    matched = match(found, views)
    if not matched:
        raise data.DataError(
            "the vertebrae found in the views do not belong together: check that the cameras are "
            "those of these radiographs, in one frame, and that the radiographs show one patient"
        )
    prior = data.load_spine_prior(exclude=exclude)
    centers = np.stack([each.center for each in matched])
    try:
        names = name_levels(sums_of_levels(matched, found), centers, prior, allowed=levels)
    except ValueError as error:
        raise data.DataError(f"{error}: give all levels that may be in view, or none") from error
    return _spine_of(matched, names, centers, found, views, prior)


def _spine_of(
    matched: Sequence[MatchedVertebra],
    names: NamedLevels,
    centers: Float[np.ndarray, "n 3"],
    found: Sequence[ViewDetections],
    views: Sequence[Camera],
    prior,
) -> FoundSpine:
    poses = curve_poses(names.levels, centers, prior)
    kept = [i for i, level in enumerate(names.levels) if level in anatomy.MODELLED_LEVELS]
    warnings = _warnings(matched, names, found)
    return FoundSpine(
        detections={names.levels[i]: _detection(matched[i], found, views) for i in kept},
        starts={names.levels[i]: poses[i] for i in kept},
        probability={names.levels[i]: float(names.each[i]) for i in kept},
        named=names.reliable,
        warnings=tuple(warnings),
        views=tuple(found),
    )


def _check_found(found: Sequence[ViewDetections]) -> None:
    if len(found) < 2:
        raise data.DataError(
            "one radiograph does not give the depth of a vertebra: give two or more, at least 20 "
            "degrees apart, or the starts of the vertebrae"
        )
    seen = sum(len(each) > 0 for each in found)
    if seen < 2:
        empty = ", ".join(str(k) for k, each in enumerate(found, 1) if not len(each))
        raise data.DataError(
            f"no vertebra was found in radiograph {empty}: it must show a spine, with the head up"
        )


def _warnings(
    matched: Sequence[MatchedVertebra], names: NamedLevels, found: Sequence[ViewDetections]
) -> list[str]:
    warnings = []
    for k, each in enumerate(found):
        taken = {vertebra.index[k] for vertebra in matched}
        if missing := len(each) - len(taken - {-1}):
            warnings.append(
                f"radiograph {k + 1}: {missing} of {len(each)} vertebrae have no partner in "
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
    """Make the detection of one vertebra: masks, and no landmarks."""
    count = len(views)
    return Detection(
        landmarks=np.zeros((count, NUM_LANDMARKS, 2)),
        sigma=np.full((count, NUM_LANDMARKS), np.inf),
        masks=tuple(
            _mask(found[k], i, view)
            for k, (i, view) in enumerate(zip(vertebra.index, views, strict=True))
        ),
    )


def _mask(found: ViewDetections, index: int, view: Camera) -> Radiograph:
    """Place a mask in a window of the radiograph, empty around it; all empty if not found."""
    cells = found.masks.shape[-1]
    margin = round(_GROWN * cells)
    side = cells + 2 * margin
    image = np.zeros((side, side), np.float32)
    if index < 0:
        return Radiograph(jnp.asarray(image), dataclasses.replace(view, image_size=(side, side)))
    image[margin:-margin, margin:-margin] = found.masks[index]
    box = found.box[index]
    per_pixel = cells / (box[2:] - box[:2])
    corner = box[:2] - margin / per_pixel
    scale = jnp.asarray(per_pixel, jnp.float32)
    window = dataclasses.replace(
        cameras.crop(view, jnp.asarray(corner, jnp.float32), (side, side)),
        focal_length=view.focal_length * scale,
        principal_point=(view.principal_point - jnp.asarray(corner, jnp.float32)) * scale,
    )
    return Radiograph(jnp.asarray(image), window)
