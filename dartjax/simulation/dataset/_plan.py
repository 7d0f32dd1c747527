"""Plan of the radiographs of a scan: a pure function of seed, subject and view number.

The result does not depend on the process that simulates a radiograph or on the order.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from dartjax import render
from dartjax._types import Point, Scalar
from dartjax.camera import Camera
from dartjax.simulation.dataset._truth import ScanTruth, VertebraTruth

VIEW_SETS = ("random", "orthogonal")
_TARGETS = 2**32 - 1  # beyond any view number
_FIELD = 7  # of the random numbers of a view


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a data set. With the cohort and the code they determine its content."""

    seed: int
    views: str  # one of VIEW_SETS
    num_views: int  # per scan
    image_size: int  # px, square
    detector_mm: tuple[float, float]  # side, drawn log-uniformly between the two
    isocenter_shift: float  # mm, largest shift from the target along each axis
    kvp: tuple[int, int]  # drawn uniformly from whole kilovolts, ends included
    low_dose: float  # fraction of views with the dose of fluoroscopy
    collimated: float  # fraction of views collimated to a part of the image
    tools: float  # fraction of views with a tool at a pedicle
    pair_deg: tuple[float, float]  # angle between the beams of a pair
    dense_fit: bool
    views_per_block: int = 10

    def blocks(self) -> list[range]:
        """Split the view numbers into blocks; views of a block share a target vertebra."""
        size = self.views_per_block
        starts = range(0, self.num_views, size)
        return [range(start, min(start + size, self.num_views)) for start in starts]


class Shot(NamedTuple):
    """Planned radiograph."""

    view: int
    name: str  # "random", "AP" or "LAT_L"
    target: str  # level at which the C-arm is aimed
    camera: Camera
    variants: tuple[str, ...]  # of "low_dose", "collimated", "tool"
    kvp: int
    tool_key: PRNGKeyArray
    field_key: PRNGKeyArray
    noise_key: PRNGKeyArray


def scan_key(seed: int, subject: str) -> PRNGKeyArray:
    """Compute the random key of a scan, independent of the machine and of other scans."""
    digest = hashlib.sha256(subject.encode()).digest()
    key = jax.random.key(seed)
    for start in (0, 4):
        word = int.from_bytes(digest[start : start + 4], "little")
        key = jax.random.fold_in(key, np.uint32(word))
    return key


def plan_shots(truth: ScanTruth, settings: Settings, block: range) -> list[Shot]:
    """Plan the radiographs of one block of views, aimed at one target vertebra."""
    key = scan_key(settings.seed, truth.subject)
    target = _target(truth, key, block.start // settings.views_per_block)
    return [_shot(view, target, key, settings) for view in block]


def plan_pairs(shots: Sequence[Shot], settings: Settings, subject: str) -> list[dict[str, Any]]:
    """Plan the pairs of views of one block, with the angle between their beams.

    For orthogonal views, a pair consists of the AP and the lateral view drawn together. For random
    views, half as many pairs as views are drawn with angles within `pair_deg` (none if there are
    none).
    """
    beams = np.stack([_beam(shot.camera) for shot in shots])
    if settings.views == "orthogonal":
        angles = np.asarray(_angles_between(beams))
        pairs = [(i, i + 1, float(angles[i, i + 1])) for i in range(0, len(shots) - 1, 2)]
    else:
        key = jax.random.fold_in(scan_key(settings.seed, subject), _TARGETS - 1 - shots[0].view)
        low, high = settings.pair_deg
        drawn = _sample_pairs(beams, len(shots) // 2, key=key, min_deg=low, max_deg=high)
        indices, degrees = (np.asarray(array).tolist() for array in drawn)
        pairs = [(i, j, angle) for (i, j), angle in zip(indices, degrees, strict=True) if i >= 0]
    return [
        {"views": [shots[i].view, shots[j].view], "angle_deg": round(angle, 3)}
        for i, j, angle in pairs
    ]


def _target(truth: ScanTruth, key: PRNGKeyArray, block: int) -> VertebraTruth:
    """Target vertebra of a block: complete vertebrae in turn, in a random order of the scan. Other
    vertebrae are used only in a scan without a complete one."""
    whole = [v for v in truth.vertebrae if v.whole]
    candidates = whole or list(truth.vertebrae)
    order = jax.random.permutation(jax.random.fold_in(key, np.uint32(_TARGETS)), len(candidates))
    return candidates[int(order[block % len(candidates)])]


def _shot(view: int, target: VertebraTruth, key: PRNGKeyArray, settings: Settings) -> Shot:
    drawn = _draw_view(
        key,
        np.uint32(view),
        np.asarray(target.center_world, np.float32),
        np.asarray(settings.kvp),
        np.asarray(settings.detector_mm, np.float32),
        np.float32(settings.isocenter_shift),
        orthogonal=settings.views == "orthogonal",
        side=settings.image_size,
    )
    shares = {
        "low_dose": settings.low_dose,
        "collimated": settings.collimated,
        "tool": settings.tools,
    }
    chances = np.asarray(drawn.chances).tolist()
    return Shot(
        view=view,
        name=("AP", "LAT_L")[view % 2] if settings.views == "orthogonal" else "random",
        target=target.level,
        camera=drawn.camera,
        variants=tuple(n for n, u in zip(shares, chances, strict=True) if u < shares[n]),
        kvp=int(drawn.kvp),
        tool_key=drawn.tool_key,
        field_key=drawn.field_key,
        noise_key=drawn.noise_key,
    )


class _DrawnView(NamedTuple):
    camera: Camera
    chances: Float[Array, "3"]  # one for each variant
    kvp: Int[Array, ""]
    tool_key: PRNGKeyArray
    field_key: PRNGKeyArray
    noise_key: PRNGKeyArray


@functools.partial(jax.jit, static_argnames=("orthogonal", "side"))
def _draw_view(
    key: PRNGKeyArray,
    view: UInt32[Array, ""],
    aim: Point,
    kvp: Int[Array, "2"],
    detector_mm: Float[Array, "2"],
    isocenter_shift: Scalar,
    *,
    orthogonal: bool,
    side: int,
) -> _DrawnView:
    """Draw all random values of one view."""
    view_key = jax.random.fold_in(key, view)
    cameras, chances, energy, tool, field, noise = jax.random.split(view_key, 6)
    # Both views of an orthogonal pair are drawn together, with the key of the first.
    first = jax.random.split(jax.random.fold_in(key, view - view % 2), 6)[0]
    low, high = jnp.log(detector_mm)
    own = jax.random.fold_in(first if orthogonal else cameras, _FIELD)
    size: dict[str, Any] = {
        "detector_mm": jnp.exp(jax.random.uniform(own, minval=low, maxval=high)),
        "image_size": (side, side),
        "ranges": render.ViewRanges(isocenter_shift=isocenter_shift),
    }
    if orthogonal:
        ap, lateral = render.orthogonal_views(aim, key=first, **size)
        camera = jax.tree.map(lambda a, b: jnp.where(view % 2 == 0, a, b), ap, lateral)
    else:
        camera = render.random_view(aim, key=cameras, **size)
    return _DrawnView(
        camera=camera,
        chances=jax.random.uniform(chances, (3,)),
        kvp=jax.random.randint(energy, (), kvp[0], kvp[1] + 1),
        tool_key=tool,
        field_key=field,
        noise_key=noise,
    )


_beam = jax.jit(lambda camera: camera.beam)
_angles_between = jax.jit(render.angles_between)
_sample_pairs = jax.jit(render.sample_pairs, static_argnums=1)
