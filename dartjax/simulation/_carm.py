"""Where the C-arm stands, and the radiographs it takes of a CT."""

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
    """A C-arm far enough away, and a flat panel large enough, to see T1 to L1 at once."""

    sdd: float = 1100.0  # mm
    source_to_isocenter: float = 780.0  # mm
    pixel_spacing: float = 0.56  # mm
    image_size: tuple[int, int] = (768, 768)
    num_samples: int = 500  # per ray

    @property
    def field_mm(self) -> float:
        """How much of the patient an image shows."""
        return self.pixel_spacing * self.image_size[0] * self.source_to_isocenter / self.sdd


def middle_of(known: Sequence[TrueVertebra]) -> np.ndarray:
    """Where the C-arm is pointed to see them: the mean of their places, world mm."""
    return np.mean([np.asarray(each.pose.translation()) for each in known], axis=0)


def seen_at_once(
    known: Sequence[TrueVertebra], setup: CarmSetup = CarmSetup()
) -> list[list[TrueVertebra]]:
    """The vertebrae, from head to foot, in as many parts of like length as images are needed to
    show them all: T1 to L5 takes two places of the C-arm along the table."""
    places = np.array([np.asarray(each.pose.translation(), float) for each in known])
    along = np.linalg.norm(places - places[0], axis=1)
    num_parts = max(1, int(np.ceil(along[-1] / setup.field_mm)))
    part = np.minimum(num_parts * along / max(along[-1], 1.0), num_parts - 1).astype(int)
    parts = (
        [each for each, own in zip(known, part, strict=True) if own == k] for k in range(num_parts)
    )
    return [own for own in parts if own]


def random_views(
    rng: np.random.Generator, isocenter: np.ndarray, setup: CarmSetup, num_views: int = 2
) -> list[Camera]:
    """C-arm views with uniform primary angle and secondary angle in +-15 degrees, such that
    every two beams make an angle of 20 to 160 degrees."""
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
    """An AP and a left lateral view of the setup, each off by at most 5 degrees in both angles."""
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
    """One view of the setup."""
    return cameras.from_carm(
        rotation,
        jnp.asarray(isocenter, jnp.float32),
        sdd=setup.sdd,
        source_to_isocenter=setup.source_to_isocenter,
        pixel_spacing=setup.pixel_spacing,
        image_size=setup.image_size,
    )


def pair_angles_deg(views: Sequence[Camera]) -> list[float]:
    """Angle between the beams of every two views."""
    return [data.angle_between(a, b) for a, b in itertools.combinations(views, 2)]


def simulate(
    ct: Volume,
    views: Sequence[Camera],
    setup: CarmSetup,
    *,
    physics: XraySettings | None = None,
    seed: int = 0,
) -> list[Radiograph]:
    """Radiographs of the whole CT: all other anatomy is in the way. Line integrals, or what a
    C-arm of the given settings would record (spectrum, scatter, noise, detector)."""
    if physics is None:
        render = jax.jit(drr, static_argnames=("num_samples",))
        return [Radiograph(render(ct, view, num_samples=setup.num_samples), view) for view in views]
    body = xray_body(ct)
    expose = jax.jit(simulate_radiograph)
    keys = jax.random.split(jax.random.key(seed), len(views))
    return [expose(body, view, physics, key=key) for view, key in zip(views, keys, strict=True)]
