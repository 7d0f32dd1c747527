"""What the detector finds in real radiographs without cameras, beside boxes that people drew."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image as PillowImage

from dartjax import data, training, transforms
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.pipeline.detection import ViewDetections

_FOCAL_SIDES = 2.5  # focal length of the camera in sides of the image; its value does not matter
_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def real_radiographs(folder: str | pathlib.Path) -> dict[str, Radiograph]:
    """Load all grey images of a folder, bone bright, each with a camera of no meaning but its
    size. DataError for a folder without images."""
    files = sorted(f for f in pathlib.Path(folder).glob("*") if f.suffix.lower() in _ENDINGS)
    if not files:
        raise data.DataError(f"{folder} has no images ({', '.join(_ENDINGS)})")
    images = {file.stem: np.asarray(PillowImage.open(file)) for file in files}
    return {name: radiograph_without_camera(image) for name, image in images.items()}


def radiograph_without_camera(pixels: np.ndarray) -> Radiograph:
    """Make a radiograph of an image alone; channels of colour are averaged."""
    image = np.asarray(pixels, np.float32)
    image = image[..., :3].mean(-1) if image.ndim == 3 else image
    height, width = image.shape
    focal = _FOCAL_SIDES * max(height, width)
    camera = Camera(
        transforms.SE3.identity(),
        jnp.full(2, focal),
        jnp.array([width / 2.0, height / 2.0]),
        jnp.asarray(float(focal)),
        (height, width),
    )
    return Radiograph(jnp.asarray(image), camera)


def drawn_boxes(path: pathlib.Path, size: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
    """Read boxes in YOLO's text format (class, centre, sides; shares of the image) in px of an
    image of `size` (height, width). DataError for a line that is none."""
    boxes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            u, v, width, height = (float(x) for x in line.split()[1:])
        except ValueError as error:
            raise data.DataError(
                f"{path}, line {number}: not five numbers (class, centre u v, width, height)"
            ) from error
        boxes.append([u - width / 2, v - height / 2, u + width / 2, v + height / 2])
    rows, columns = size
    return np.array(boxes, float).reshape(-1, 4) * np.array([columns, rows, columns, rows])


def body_box_rows(
    found: ViewDetections, boxes: Float[np.ndarray, "n 4"], overlap: float = 0.5
) -> list[dict[str, Any]]:
    """Compare the boxes of the found bodies with drawn ones: a row per drawn box and per false
    one."""
    matched = training.match_boxes(found.body_box, found.score, boxes, overlap)
    rows: list[dict[str, Any]] = [
        {"kind": "found", "overlap": float(each)} for each in matched.overlap
    ]
    rows += [{"kind": "missed"}] * (len(boxes) - len(matched.true))
    rows += [{"kind": "false"}] * (len(found) - len(matched.found))
    return rows


def body_box_summary(images: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Recall and precision over all images, and the largest number of boxes of an image."""
    rows = [row for image in images for row in image]
    count = {k: sum(row["kind"] == k for row in rows) for k in ("found", "missed", "false")}
    boxes = [sum(row["kind"] != "missed" for row in image) for image in images]
    return {
        "body_recall": count["found"] / max(count["found"] + count["missed"], 1),
        "body_precision": count["found"] / max(count["found"] + count["false"], 1),
        "most_boxes": float(max(boxes, default=0)),
    }
