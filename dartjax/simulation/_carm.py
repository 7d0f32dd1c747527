"""C-arm views of a spine, and simulated radiographs of a CT."""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import camera as cameras
from dartjax import data, transforms
from dartjax.camera import Camera
from dartjax.image import Radiograph, Volume
from dartjax.render import (
    ViewRanges,
    XraySettings,
    drr,
    orthogonal_views,
    simulate_radiograph,
    xray_body,
)
from dartjax.simulation._ground_truth import TrueVertebra


@dataclasses.dataclass(frozen=True)
class CarmSetup:
    """C-arm geometry with a flat panel, whose field shows T1 to L1 in one image."""

    sdd: float = 1100.0  # mm
    source_to_isocenter: float = 780.0  # mm
    pixel_spacing: float = 0.56  # mm
    image_size: tuple[int, int] = (768, 768)
    num_samples: int = 500  # per ray

    @property
    def field_mm(self) -> float:
        """Width of the field at the isocenter."""
        return self.pixel_spacing * self.image_size[0] * self.source_to_isocenter / self.sdd


def middle_of(truths: Sequence[TrueVertebra]) -> np.ndarray:
    """Compute the isocenter for vertebrae: the mean of their positions, world mm."""
    return np.mean([np.asarray(each.pose.translation()) for each in truths], axis=0)


def seen_at_once(
    truths: Sequence[TrueVertebra], setup: CarmSetup = CarmSetup()
) -> list[list[TrueVertebra]]:
    """Group vertebrae, from head to foot, into parts that fit into one image each.

    Parts have similar lengths; T1 to L5 needs two positions of the C-arm along the table.
    """
    positions = np.array([np.asarray(each.pose.translation(), float) for each in truths])
    along = np.linalg.norm(positions - positions[0], axis=1)
    num_parts = max(1, int(np.ceil(along[-1] / setup.field_mm)))
    part = np.minimum(num_parts * along / max(along[-1], 1.0), num_parts - 1).astype(int)
    parts = (
        [vertebra for vertebra, index in zip(truths, part, strict=True) if index == k]
        for k in range(num_parts)
    )
    return [vertebrae for vertebrae in parts if vertebrae]


def random_views(
    rng: np.random.Generator, isocenter: np.ndarray, setup: CarmSetup, num_views: int = 2
) -> list[Camera]:
    """Draw C-arm views with uniform primary angle and secondary angle in +-15 degrees.

    The angle between every two beams is 20 to 160 degrees.
    """
    while True:
        primary = rng.uniform(-np.pi, np.pi, num_views)
        secondary = rng.uniform(-np.pi / 12, np.pi / 12, num_views)
        views = [
            carm_view(transforms.carm_rotation(a, b), isocenter, setup)
            for a, b in zip(primary, secondary, strict=True)
        ]
        if num_views == 1 or 20.0 <= min(angles := pair_angles_deg(views)) <= max(angles) <= 160.0:
            return views


def ap_and_lateral(
    rng: np.random.Generator, isocenter: np.ndarray, setup: CarmSetup
) -> list[Camera]:
    """Draw an AP and a left lateral view, each rotated by at most 5 degrees in both angles."""
    ranges = ViewRanges(
        sdd=(setup.sdd, setup.sdd),
        source_to_isocenter=(setup.source_to_isocenter, setup.source_to_isocenter),
        isocenter_shift=0.0,
    )
    views = orthogonal_views(
        jnp.asarray(isocenter, jnp.float32),
        key=jax.random.key(int(rng.integers(2**31))),
        ranges=ranges,
        detector_mm=setup.pixel_spacing * max(setup.image_size),
        image_size=setup.image_size,
    )
    return list(views)


def carm_view(rotation: transforms.SO3, isocenter: np.ndarray, setup: CarmSetup) -> Camera:
    """Build the camera of one view of the setup."""
    return cameras.from_carm(
        rotation,
        jnp.asarray(isocenter, jnp.float32),
        sdd=setup.sdd,
        source_to_isocenter=setup.source_to_isocenter,
        pixel_spacing=setup.pixel_spacing,
        image_size=setup.image_size,
    )


def pair_angles_deg(views: Sequence[Camera]) -> list[float]:
    """Compute the angles between the beams of every two views."""
    return [data.angle_between(a, b) for a, b in itertools.combinations(views, 2)]


def simulate(
    ct: Volume,
    views: Sequence[Camera],
    setup: CarmSetup,
    *,
    physics: XraySettings | None = None,
    seed: int = 0,
) -> list[Radiograph]:
    """Simulate radiographs of the whole CT, with all overlapping anatomy.

    Without `physics` the images are line integrals; otherwise they are simulated with its spectrum,
    scatter, noise and detector.
    """
    if physics is None:
        render = jax.jit(drr, static_argnames=("num_samples",))
        return [Radiograph(render(ct, view, num_samples=setup.num_samples), view) for view in views]
    body = xray_body(ct)
    expose = jax.jit(simulate_radiograph)
    keys = jax.random.split(jax.random.key(seed), len(views))
    return [expose(body, view, physics, key=key) for view, key in zip(views, keys, strict=True)]
