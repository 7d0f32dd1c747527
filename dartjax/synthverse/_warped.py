"""Warped family: real meshes of recorded parents, scaled to a random person and warped at random.

Evaluation subjects (`FORBIDDEN`) are never used as parents.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from dartjax import mesh, ssm
from dartjax._errors import DataError
from dartjax.data import SUFFIXES, load_mesh, same_subject
from dartjax.ssm import build
from dartjax.synthverse._shape import Bounds, VertebraShape
from dartjax.synthverse._sizes import LEVELS
from dartjax.synthverse._solids import Field
from dartjax.synthverse._vertebra import VertebraForm

FORBIDDEN = (
    *("lidc", "lidc0001", "tptbox", "tptct"),
    *("verse005", "verse006", "verse007"),
)
FRACTURED = ("verse009/T5", "verse009/L3")  # not used as parents
STEP_MM = 0.7
_MARGIN_MM = 9.0
_SCALE_RANGE = (0.84, 1.2)


class Parent(NamedTuple):
    """A real vertebra in its own frame: signed distance on a grid, and dimensions."""

    subject: str
    level: str
    distance: Float[np.ndarray, "i j k"]
    origin: Float[np.ndarray, "3"]
    lengths: dict[str, float]
    bounds: Bounds


def find_parents(folder: Path) -> dict[str, dict[str, Path]]:
    """Find mesh files SUBJECT/LEVEL by subject and level; other files, forbidden subjects and
    fractured vertebrae are ignored. DataError if the folder is missing, has no such file, or is
    that of a forbidden subject."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of meshes SUBJECT/LEVEL.ply")
    if is_forbidden(folder.absolute().name):
        raise DataError(
            f"{folder}: {folder.name} is an evaluation subject and cannot be a parent of synthetic "
            "anatomy: give a folder of other subjects"
        )
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*")):
        level, subject = path.stem.upper(), path.parent.name
        usable = level in LEVELS and f"{subject}/{level}" not in FRACTURED
        if usable and path.suffix.lower() in SUFFIXES and not is_forbidden(subject):
            found.setdefault(subject, {})[level] = path
    if not found:
        raise DataError(
            f"{folder}: no SUBJECT/LEVEL.ply, such as anna/L1.ply, of an allowed subject "
            f"(never {', '.join(FORBIDDEN)})"
        )
    return found


def is_forbidden(subject: str) -> bool:
    """Return whether a subject may not be a parent of synthetic anatomy."""
    return same_subject(subject.lower(), FORBIDDEN)


def draw_parents(
    rng: np.random.Generator, available: dict[str, dict[str, Path]]
) -> dict[str, tuple[str, Path]]:
    """Draw one parent for the thorax and one for the lumbar spine.

    Candidates are the subjects with the most levels of the region, or one fewer. A level that the
    parent lacks comes from another subject."""
    chosen = {}
    for region in ([f"T{i}" for i in range(1, 13)], [f"L{i}" for i in range(1, 6)]):
        counts = {s: sum(v in files for v in region) for s, files in available.items()}
        most = max(counts.values())
        fit = sorted(s for s, n in counts.items() if n and n >= most - 1)
        order = [str(s) for s in rng.permutation(fit)] + sorted(set(available) - set(fit))
        for level in region:
            for subject in order:
                if level in available[subject]:
                    chosen[level] = (subject, available[subject][level])
                    break
    return chosen


@functools.lru_cache(maxsize=64)
def load_parent(subject: str, level: str, path: Path) -> Parent:
    """Read a mesh, transform it into its vertebra frame and measure it. DataError if that fails."""
    surface = load_mesh(path)
    vertices, faces = np.asarray(surface.vertices, float), np.asarray(surface.faces)
    try:
        local = ssm.to_vertebra_frame(vertices, faces)
        lengths = {k: c.value for k, c in build.measure(local, faces).items()}
    except ValueError as error:
        raise DataError(f"{path}: cannot be used for synthetic spines: {error}") from error
    origin = local.min(0) - _MARGIN_MM
    nx, ny, nz = (int(n) for n in np.ceil((np.ptp(local, axis=0) + 2 * _MARGIN_MM) / STEP_MM))
    inside = mesh.voxelize(local, faces, origin, (nx, ny, nz), STEP_MM)
    to_bone, to_wall = (ndimage.distance_transform_edt(part) for part in (~inside, inside))
    distance = np.asarray(np.asarray(to_bone) - np.asarray(to_wall), np.float32)
    distance = ndimage.gaussian_filter(distance, 0.6) * STEP_MM
    return Parent(
        subject, level, distance, origin, lengths, _bounds(local, inside, origin, lengths)
    )


def _bounds(local, inside, origin, lengths) -> Bounds:
    """Measure the dimensions of a mesh in its frame from its midline and its outermost points."""
    grid = [o + STEP_MM * np.arange(n) for o, n in zip(origin, inside.shape, strict=True)]
    ahead = inside & (grid[1] > -3.0)[None, :, None] & (np.abs(grid[0]) < 3.0)[:, None, None]
    front = grid[1][np.flatnonzero(ahead.any((0, 2)))[-1]]
    heights = grid[2][np.flatnonzero(ahead.any((0, 1)))]
    behind = inside[:, :, np.abs(grid[2]).argmin()][np.abs(grid[0]).argmin()]
    first = int(np.abs(grid[1]).argmin())
    while first > 0 and behind[first]:
        first -= 1
    tips = local[local[:, 0] > local[:, 0].max() - 2.0].mean(0)
    half = 0.5 * lengths["endplate_width"]
    across = 0.5 * lengths["canal_width"] + 0.5 * lengths["pedicle_width_right"]
    return Bounds(
        half_width=half,
        front=float(front),
        wall=float(grid[1][first]),
        upper=float(heights[-1]),
        lower=float(heights[0]),
        pedicle=(across, 0.5 * lengths["pedicle_width_right"]),
        tp_tip=(float(tips[0]), float(tips[1]), float(tips[2])),
        back=float(local[:, 1].min()),
    )


def warped_shape(level: str, parent: Parent, form: VertebraForm) -> VertebraShape:
    """Scale a parent to body width, height, depth and transverse span of a form.

    The scales are clipped to 0.84 to 1.2. The random warp is applied when the bone is placed."""
    own = parent.lengths
    clip = functools.partial(np.clip, a_min=_SCALE_RANGE[0], a_max=_SCALE_RANGE[1])
    across = float(clip(form.body_width / own["endplate_width"]))
    height = 0.5 * (form.body_height + form.body_height_post)
    up = float(clip(height / (0.5 * (own["body_height"] + own["body_height_post"]))))
    depth = parent.bounds.front - parent.bounds.wall
    forward = float(clip(0.5 * (form.body_depth / depth + across)))
    inner = parent.bounds.half_width
    reach = parent.bounds.tp_tip[0]
    wanted = 0.5 * form.tp_span
    outer = 1.0
    if reach > inner + 3.0:  # lateral to the body the transverse processes have their own scale
        outer = float(np.clip((wanted - across * inner) / (reach - inner), 0.7, 1.4))
    edge = np.float32(across * inner)
    low, shape = parent.origin.astype(np.float32), parent.distance

    def distance(x: Field, y: Field, z: Field) -> Field:
        lateral = np.abs(x)
        source = np.where(
            lateral < edge,
            lateral / np.float32(across),
            np.float32(inner) + (lateral - edge) / np.float32(outer),
        )
        points = np.broadcast_arrays(
            np.sign(x) * source, y / np.float32(forward), z / np.float32(up)
        )
        index = [(p - o) / np.float32(STEP_MM) for p, o in zip(points, low, strict=True)]
        value = ndimage.map_coordinates(shape, index, order=1, mode="nearest")
        return value.astype(np.float32) * np.float32(min(across, forward, up, outer))

    b = parent.bounds
    tip = across * inner + (b.tp_tip[0] - inner) * outer if b.tp_tip[0] > inner else across * reach
    bounds = Bounds(
        half_width=across * inner,
        front=forward * b.front,
        wall=forward * b.wall,
        upper=up * b.upper,
        lower=up * b.lower,
        pedicle=(across * b.pedicle[0], across * b.pedicle[1]),
        tp_tip=(float(tip), forward * b.tp_tip[1], up * b.tp_tip[2]),
        back=forward * b.back,
    )
    return VertebraShape(level, distance, bounds, source=f"{parent.subject} {parent.level}")
