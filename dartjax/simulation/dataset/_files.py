"""Files of one unit of a data set: radiographs and their ground truth.

Each radiograph has a 16 bit PNG and a JSON file. The unit has the packed records, the cameras in
the format of `experiments.reconstruct`, and the pairs. docs/xray_datasets.md describes every key.
"""

import io
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, UInt16
from PIL import Image as PillowImage

from dartjax import camera as cameras
from dartjax import data, render
from dartjax._types import Pixels, Points
from dartjax.camera import Camera
from dartjax.image import silhouette_contours
from dartjax.observations import LANDMARK_NAMES, SIDES
from dartjax.simulation.dataset._bodies import ProjectedBodies
from dartjax.simulation.dataset._plan import Shot
from dartjax.simulation.dataset._truth import ScanTruth, VertebraTruth, plain_floats


class Radiograph(NamedTuple):
    """Simulated radiograph with its parameters."""

    shot: Shot
    image: Float[np.ndarray, "h w"]  # line integrals
    thickness: Float[np.ndarray, "vertebra h w"]  # mm, in the order of the ground truth
    open_field: Float[np.ndarray, "4"]  # u0, v0, u1, v1 px
    bodies: ProjectedBodies
    physics: dict[str, Any]  # energy, photons etc., plain numbers
    tools: list[dict[str, Any]]


class ProjectedTruth(NamedTuple):
    """Ground truth of a scan projected to one view. Points are (u, v) px, NaN if unknown."""

    landmarks: Float[np.ndarray, "vertebra 10 2"]
    visible: Bool[np.ndarray, "vertebra 10"]
    paths: Float[np.ndarray, "vertebra 2 2 2"]


def write_unit(
    folder: pathlib.Path,
    truth: ScanTruth,
    taken: Sequence[Radiograph],
    pairs: Sequence[dict[str, Any]],
) -> None:
    """Write all files of a unit into an empty folder."""
    size = taken[0].shot.camera.image_size
    records = np.zeros(len(taken), data.radiograph_record(size, len(truth.vertebrae)))
    entries = []
    for row, radiograph in enumerate(taken):
        seen = project_truth(truth, radiograph.shot.camera, radiograph.open_field)
        pixels = data.encode_radiograph(radiograph.image)
        _fill(records[row], truth, radiograph, pixels, seen)
        name = file_name(radiograph.shot.view)
        PillowImage.fromarray(pixels).save(folder / f"{name}.png")
        entry = radiograph_entry(truth, radiograph, seen)
        (folder / f"{name}.json").write_bytes(data.json_bytes(entry))
        entries.append(entry)
    packed = io.BytesIO()  # NumPy does not report a full disk
    np.save(packed, records, allow_pickle=False)
    (folder / data.PACKED).write_bytes(packed.getvalue())
    views = {"cameras": [entry["camera"] for entry in entries]}
    (folder / "cameras.json").write_bytes(data.json_bytes(views))
    (folder / "pairs.json").write_bytes(data.json_bytes({"pairs": list(pairs)}))


def file_name(view: int) -> str:
    """Return the name of a radiograph's files, without suffix."""
    return f"{view:04d}"


def project_truth(
    truth: ScanTruth, camera: Camera, open_field: Float[np.ndarray, "4"]
) -> ProjectedTruth:
    """Project landmarks and paths of every vertebra to the detector.

    A landmark is visible if it is in the open field, between source and detector. Occlusion by bone
    is not considered.
    """
    count = len(truth.vertebrae)
    landmarks = np.full((count, len(LANDMARK_NAMES), 3), np.nan, np.float32)
    paths = np.full((count, 2, 2, 3), np.nan, np.float32)
    for index, vertebra in enumerate(truth.vertebrae):
        if vertebra.landmarks_world is not None:
            landmarks[index], paths[index] = vertebra.landmarks_world, vertebra.paths_world
    points = np.concatenate([landmarks.reshape(-1, 3), paths.reshape(-1, 3)])
    pixels, depth = (np.asarray(array) for array in _projected(camera, points))
    seen = pixels[: landmarks.size // 3]
    inside = ((seen >= open_field[:2]) & (seen <= open_field[2:])).all(1)
    inside &= (depth[: len(seen)] > 0.0) & (depth[: len(seen)] < float(camera.sdd))
    return ProjectedTruth(
        landmarks=seen.reshape(count, -1, 2),
        visible=inside.reshape(count, -1),
        paths=pixels[len(seen) :].reshape(count, 2, 2, 2),
    )


def radiograph_entry(
    truth: ScanTruth, radiograph: Radiograph, seen: ProjectedTruth
) -> dict[str, Any]:
    """Build the JSON content of one radiograph."""
    shot = radiograph.shot
    beam = np.asarray(shot.camera.beam, np.float64)
    vertebrae = [
        _vertebra_entry(vertebra, radiograph, seen, index)
        for index, vertebra in enumerate(truth.vertebrae)
    ]
    return {
        "subject": truth.subject,
        "dataset": truth.dataset,
        "dataset_kind": truth.dataset_kind,
        "split": truth.split,
        "view": shot.view,
        "name": shot.name,
        "target": shot.target,
        "image": f"{file_name(shot.view)}.png",
        "pixels": "16 bit, 0 to 65535 for line integrals 0 to 8",
        "camera": data.camera_entry(shot.camera, f"{truth.subject} {file_name(shot.view)}"),
        "primary_deg": round(float(np.degrees(np.arctan2(-beam[0], beam[1]))), 3),
        "secondary_deg": round(float(np.degrees(np.arcsin(np.clip(beam[2], -1.0, 1.0)))), 3),
        "pixel_spacing_mm": round(float(shot.camera.pixel_spacing[0]), 5),
        "variants": list(shot.variants),
        "open_field_px": plain_floats(radiograph.open_field, 2),
        "physics": radiograph.physics,
        "tools": radiograph.tools,
        "vertebrae": vertebrae,
    }


def _vertebra_entry(
    vertebra: VertebraTruth, radiograph: Radiograph, seen: ProjectedTruth, index: int
) -> dict[str, Any]:
    thickness, bodies = radiograph.thickness[index], radiograph.bodies
    entry: dict[str, Any] = {
        "level": vertebra.level,
        "label": vertebra.label,
        "whole": vertebra.whole,
        "mask_area_px": int((thickness > render.MASK_MM).sum()),
        "contours": _contours(thickness),
        "exposed_share": round(float(bodies.exposed[index]), 4),
        "body_center_px": plain_floats(bodies.center[index], 2),
        "body_box_px": plain_floats(bodies.box[index], 2),
        "reason": vertebra.reason,
        "world_from_vertebra": None,
        "landmarks": None,
        "paths": None,
    }
    if vertebra.world_from_vertebra is None:
        return entry
    landmarks = zip(LANDMARK_NAMES, seen.landmarks[index], seen.visible[index], strict=True)
    feasible = vertebra.paths_feasible
    return entry | {
        "world_from_vertebra": plain_floats(vertebra.world_from_vertebra, 7),
        "landmarks": {
            name: {"px": plain_floats(point, 2), "visible": bool(visible)}
            for name, point, visible in landmarks
        },
        "paths": {
            side: {
                "entry_px": plain_floats(seen.paths[index, i, 0], 2),
                "target_px": plain_floats(seen.paths[index, i, 1], 2),
                "feasible": bool(feasible[i]),
            }
            for i, side in enumerate(SIDES)
        },
    }


def _contours(thickness: Float[np.ndarray, "h w"]) -> list[Any]:
    """Contours of the mask as closed polygons of (u, v) px. Every second vertex is kept; vertices
    are about 0.7 px apart."""
    if thickness.max() <= render.MASK_MM:
        return []
    outlines = silhouette_contours(thickness, render.MASK_MM)
    thinned = [np.concatenate([line[:-1:2], line[:1]]) for line in outlines]
    return [plain_floats(line, 2) for line in thinned if len(line) > 3]


def _fill(
    record: np.void,
    truth: ScanTruth,
    radiograph: Radiograph,
    pixels: UInt16[np.ndarray, "h w"],
    seen: ProjectedTruth,
) -> None:
    """Fill one packed record in place."""
    camera = radiograph.shot.camera
    record["view"] = radiograph.shot.view
    record["image"] = pixels
    record["K"] = np.asarray(camera.intrinsics)
    record["camera_from_world"] = np.asarray(camera.camera_from_world.as_matrix())
    record["sdd"] = float(camera.sdd)
    record["open_field"] = radiograph.open_field
    record["masks"] = data.pack_masks(radiograph.thickness > render.MASK_MM)
    record["landmarks"], record["landmarks_visible"] = seen.landmarks, seen.visible
    record["paths"] = seen.paths
    bodies = radiograph.bodies
    record["body_centers"], record["body_boxes"] = bodies.center, bodies.box
    record["exposed_share"] = bodies.exposed
    for index, vertebra in enumerate(truth.vertebrae):
        record["labels"][index] = vertebra.label
        record["paths_feasible"][index] = vertebra.paths_feasible
        for name in ("landmarks_world", "paths_world", "world_from_vertebra"):
            known = getattr(vertebra, name)
            record[name][index] = np.nan if known is None else known


@jax.jit
def _projected(camera: Camera, points: Points) -> tuple[Pixels, Float[Array, " n"]]:
    """Pixels of world points, and their depth along the beam."""
    return cameras.project(camera, points), cameras.depth(camera, points)
