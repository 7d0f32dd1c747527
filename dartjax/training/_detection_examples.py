"""Training examples of the detector: radiographs of a data set with boxes, bodies and masks.

They are written once from a data set of `experiments.simulate_xrays` and memory-mapped.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dartjax import anatomy, data
from dartjax._arrays import map_array
from dartjax._progress import Step, no_step
from dartjax.models import DETECTED_LEVELS

MOST_VERTEBRAE = len(DETECTED_LEVELS)
MASK_CELLS = 56  # per side of a box: a mask is stored in these cells
LEAST_EXPOSED = 1.0 / 3.0  # share of a vertebra that makes it ground truth
LEAST_PIXELS = 25  # of a vertebra in view
_BELOW = 1.2  # from the lowest vertebra to the sacrum, in distances of the two lowest ones


class DetectionBatch(eqx.Module):
    """Radiographs with their vertebrae. Boxes in pixels; a vertebra of level -1 is padding."""

    image: Float[Array, "*n h w"]  # line integrals
    open_field: Float[Array, "*n 4"]
    level: Int[Array, "*n vertebra"]  # index into DETECTED_LEVELS
    box: Float[Array, "*n vertebra 4"]  # around the mask
    body_box: Float[Array, "*n vertebra 4"]
    center: Float[Array, "*n vertebra 2"]
    exposed: Float[Array, "*n vertebra"]
    mask: Float[Array, "*n vertebra m m"]  # within the box
    sacrum: Float[Array, "*n"]  # 1 = in view


@dataclasses.dataclass(frozen=True)
class DetectionExamples:
    """Examples in a folder, memory-mapped: the fields of `DetectionBatch`, and the subjects."""

    fields: dict[str, np.ndarray]
    subjects: tuple[str, ...]  # one per example

    def __len__(self) -> int:
        return len(self.subjects)

    def rows_of(self, wanted: Sequence[str]) -> np.ndarray:
        """Return the rows of some subjects."""
        return np.flatnonzero(np.isin(np.array(self.subjects), list(wanted)))

    def batch(self, rows: np.ndarray) -> DetectionBatch:
        """Load some examples."""
        loaded: dict[str, Any] = {name: values[rows] for name, values in self.fields.items()}
        loaded["image"] = data.decode_radiograph(loaded["image"])
        loaded["mask"] = np.unpackbits(loaded["mask"], axis=-1, count=MASK_CELLS).astype(np.float32)
        return DetectionBatch(**loaded)


def load_detection_examples(
    xrays: Sequence[str], folder: str | pathlib.Path, step: Step = no_step
) -> DetectionExamples:
    """Open the examples of data sets in a folder; write them first if they are not there.

    DataError for an unfinished data set, and for one of subjects on whom results are reported.
    """
    place = pathlib.Path(folder)
    if not (place / "examples.json").is_file():
        data.publish_folder(
            place, lambda partial: _write([data.open_xrays(each) for each in xrays], partial, step)
        )
    content = data.read_json(place / "examples.json")
    fields = {name: map_array(place / f"{name}.npy") for name in content["fields"]}
    return DetectionExamples(fields, tuple(content["subjects"]))


def _write(sources: Sequence[data.XrayDataset], folder: pathlib.Path, step: Step) -> None:
    dtype = _example_type(sources[0][0]["image"].shape)
    count = sum(map(len, sources))
    names = [str(name) for name in dtype.names or ()]
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", dtype[name].base, (count, *dtype[name].shape)
        )
        for name in names
    }
    records = (source[row] for source in sources for row in range(len(source)))
    for row, record in enumerate(records):
        for name, value in example_of(record).items():
            arrays[name][row] = value
        if row % 100 == 99:
            step(f"{row + 1} of {count} examples")
    for array in arrays.values():
        array.flush()
    subjects = [source.subjects[scan] for source in sources for scan, _, _ in source.rows]
    (folder / "examples.json").write_bytes(data.json_bytes({"fields": names, "subjects": subjects}))


def _example_type(size: tuple[int, ...]) -> np.dtype:
    n = MOST_VERTEBRAE
    return np.dtype(
        [
            ("image", "<u2", size),
            ("open_field", "<f4", (4,)),
            ("level", "<i4", (n,)),
            ("box", "<f4", (n, 4)),
            ("body_box", "<f4", (n, 4)),
            ("center", "<f4", (n, 2)),
            ("exposed", "<f4", (n,)),
            ("mask", "u1", (n, MASK_CELLS, MASK_CELLS // 8)),
            ("sacrum", "<f4"),
        ]
    )


def example_of(record: dict[str, np.ndarray]) -> dict[str, Any]:
    """Make the example of a radiograph of a data set (`XrayDataset`)."""
    n = MOST_VERTEBRAE
    example: dict[str, Any] = {
        "image": data.encode_radiograph(record["image"]),
        "open_field": record["open_field"],
        "level": np.full(n, -1, np.int32),
        "box": np.zeros((n, 4), np.float32),
        "body_box": np.zeros((n, 4), np.float32),
        "center": np.zeros((n, 2), np.float32),
        "exposed": np.zeros(n, np.float32),
        "mask": np.zeros((n, MASK_CELLS, MASK_CELLS // 8), np.uint8),
        "sacrum": _sacrum_in_view(record),
    }
    seen = [i for i in range(len(record["labels"])) if _is_seen(record, i)]
    for place, i in enumerate(seen[:n]):
        box = box_around(record["masks"][i])
        example["level"][place] = DETECTED_LEVELS.index(anatomy.level_of(int(record["labels"][i])))
        example["box"][place] = box
        example["body_box"][place] = record["body_boxes"][i]
        example["center"][place] = record["body_centers"][i]
        example["exposed"][place] = record["exposed_share"][i]
        example["mask"][place] = np.packbits(_in_cells(record["masks"][i], box), axis=-1)
    return example


def _is_seen(record: dict[str, np.ndarray], i: int) -> bool:
    label = int(record["labels"][i])
    if label == 0 or anatomy.level_of(label) not in DETECTED_LEVELS:
        return False
    is_large = record["masks"][i].sum() >= LEAST_PIXELS
    is_exposed = record["exposed_share"][i] >= LEAST_EXPOSED
    return bool(is_large and is_exposed and np.isfinite(record["body_boxes"][i]).all())


def box_around(mask: np.ndarray) -> Float[np.ndarray, "4"]:
    """Compute the box around a mask (h, w) that is not empty: u0, v0, u1, v1."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _in_cells(mask: np.ndarray, box: Float[np.ndarray, "4"]) -> np.ndarray:
    """Sample a mask at the centres of the cells of its box."""
    steps = (np.arange(MASK_CELLS) + 0.5) / MASK_CELLS
    columns = np.floor(box[0] + steps * (box[2] - box[0])).astype(int)
    rows = np.floor(box[1] + steps * (box[3] - box[1])).astype(int)
    return mask[rows][:, columns]


def _sacrum_in_view(record: dict[str, np.ndarray]) -> float:
    """Return 1 if the sacrum is in the open field: below L5 or L6, on the line of the spine."""
    levels = [anatomy.level_of(int(label)) for label in record["labels"] if label > 0]
    centers = record["body_centers"][: len(levels)]
    if len(levels) < 2 or levels[-1] not in ("L5", "L6"):
        return 0.0
    place = centers[-1] + _BELOW * (centers[-1] - centers[-2])
    low, high = record["open_field"][:2], record["open_field"][2:]
    return float(((place > low) & (place < high)).all())


def detection_batches(
    examples: DetectionExamples, rows: np.ndarray, batch_size: int, seed: int
) -> Callable[[int], DetectionBatch]:
    """Make the function that loads the batch of a step; every row once before any again."""
    order = data.grain().MapDataset.source(rows).seed(seed).shuffle().repeat().batch(batch_size)

    def batch_of(step: int) -> DetectionBatch:
        return jax.tree.map(jnp.asarray, examples.batch(np.asarray(order[step])))

    return batch_of
