"""Read data sets of simulated radiographs: packed format, access by row, shuffled loader.

docs/xray_datasets.md describes the folder. Every unit holds `radiographs.npy`, a NumPy array with
one record per radiograph (no pickle), which is memory-mapped.
"""

import dataclasses
import importlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, UInt8, UInt16

from dartjax._errors import DataError
from dartjax.anatomy import unknown_name
from dartjax.camera import Camera, from_intrinsics
from dartjax.data.formats import FULL_SCALE, PathLike, array_of, list_of_texts, map_array, read_json
from dartjax.observations import NUM_LANDMARKS
from dartjax.transforms import from_matrix

XRAY_FORMAT = "dartjax-xrays-2"
_FIRST_FORMAT = "dartjax-xrays-1"  # without the fields of the bodies
PACKED = "radiographs.npy"
_WHITE = 65535
_FARTHEST_MM = 1e5
# Fields with one entry per vertebra of the scan: padded to the same number in a batch.
_PER_VERTEBRA = (
    "labels",
    "masks",
    "landmarks",
    "landmarks_visible",
    "landmarks_world",
    "paths",
    "paths_world",
    "paths_feasible",
    "world_from_vertebra",
    "body_centers",
    "body_boxes",
    "exposed_share",
)


def encode_radiograph(image: Float[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h w"]:
    """Encode line integrals 0 to 8 as 16 bit pixels 0 to 65535, as `load_radiograph` reads them.

    The step is 0.00012. Values outside (noise in air below 0, pixels without signal) are clipped.
    """
    scaled = np.clip(image * (_WHITE / FULL_SCALE), 0.0, _WHITE)
    return np.rint(scaled).astype(np.uint16)


def decode_radiograph(pixels: UInt16[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Decode 16 bit pixels to float32 line integrals: the inverse of `encode_radiograph`."""
    return pixels.astype(np.float32) * np.float32(FULL_SCALE / _WHITE)


def radiograph_record(
    image_size: tuple[int, int], num_vertebrae: int, *, bodies: bool = True
) -> np.dtype:
    """Return the type of one record of `radiographs.npy`: a radiograph and its ground truth.

    Pixels are (u, v), world coordinates are in mm, unknown values are NaN. `masks` are bits packed
    along the rows (`np.packbits`); `open_field` is (u0, v0, u1, v1) between the collimator's jaws.
    `body_boxes` (u0, v0, u1, v1) surround the projected bodies, `exposed_share` is the share of a
    vertebra in the open field; the first format had no fields of `bodies`.
    """
    (height, width), count = image_size, num_vertebrae
    fields = [
        ("view", "<u4"),
        ("image", "<u2", (height, width)),
        ("K", "<f4", (3, 3)),
        ("camera_from_world", "<f4", (4, 4)),
        ("sdd", "<f4"),
        ("open_field", "<f4", (4,)),
        ("labels", "u1", (count,)),
        ("masks", "u1", (count, height, -(-width // 8))),
        ("landmarks", "<f4", (count, NUM_LANDMARKS, 2)),
        ("landmarks_visible", "?", (count, NUM_LANDMARKS)),
        ("landmarks_world", "<f4", (count, NUM_LANDMARKS, 3)),
        ("paths", "<f4", (count, 2, 2, 2)),
        ("paths_world", "<f4", (count, 2, 2, 3)),
        ("paths_feasible", "?", (count, 2)),
        ("world_from_vertebra", "<f4", (count, 4, 4)),
    ]
    of_bodies = [
        ("body_centers", "<f4", (count, 2)),
        ("body_boxes", "<f4", (count, 4)),
        ("exposed_share", "<f4", (count,)),
    ]
    return np.dtype([*fields, *(of_bodies if bodies else [])])


def pack_masks(masks: Bool[np.ndarray, "vertebra h w"]) -> UInt8[np.ndarray, "vertebra h b"]:
    """Pack masks, which may overlap, into one bit per pixel."""
    return np.packbits(masks, axis=-1)


def unpack_masks(
    packed: UInt8[np.ndarray, "vertebra h b"], width: int
) -> Bool[np.ndarray, "vertebra h w"]:
    """Unpack masks of images `width` pixels wide: the inverse of `pack_masks`."""
    return np.unpackbits(packed, axis=-1, count=width).astype(bool)


@dataclasses.dataclass(frozen=True)
class XrayDataset:
    """Radiographs of a data set by row: `dataset[i]` is a dictionary of arrays.

    It holds the fields of `radiograph_record`, with `image` as line integrals, `masks` unpacked
    and the fields per vertebra padded with label 0 to `num_vertebrae`, and `scan`, the index of
    the subject in `subjects`. Only the requested row is read.
    """

    root: Path
    manifest: dict[str, Any]
    subjects: tuple[str, ...]
    units: tuple[str, ...]  # folders below root
    rows: tuple[tuple[int, int, int], ...]  # (scan, unit, row in the unit) of every radiograph
    num_vertebrae: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        scan, unit, row = self.rows[index]
        record = _checked_record(self.root / self.units[unit] / PACKED, row, self.num_vertebrae)
        fields = {name: np.asarray(record[name]) for name in record.dtype.names or ()}
        fields["image"] = decode_radiograph(fields["image"])
        fields["masks"] = unpack_masks(fields["masks"], fields["image"].shape[1])
        for name in fields.keys() & set(_PER_VERTEBRA):
            fields[name] = _padded(fields[name], self.num_vertebrae)
        return {**fields, "scan": np.asarray(scan, np.int32)}

    def pairs(self) -> list[tuple[int, int, float]]:
        """Return pairs of views of one vertebra: two rows and the angle between the beams in deg.

        DataError for a unit whose pairs cannot be read.
        """
        index_of = {(unit, row): index for index, (_, unit, row) in enumerate(self.rows)}
        found = []
        for unit, folder in enumerate(self.units):
            views = _packed(self.root / folder / PACKED)["view"].tolist()
            for place, pair in _listed_pairs(self.root / folder / "pairs.json"):
                rows = [(unit, views.index(v)) for v in pair["views"] if v in views]
                if len(rows) != 2 or not set(rows) <= index_of.keys():
                    raise DataError(f"{place}: {pair['views']} are not two of its radiographs")
                angle = float(array_of(f"{place}: angle_deg", pair.get("angle_deg"), ()))
                found.append((index_of[rows[0]], index_of[rows[1]], angle))
        return found

    def camera(self, index: int) -> Camera:
        """Return the camera of a radiograph."""
        _, unit, row = self.rows[index]
        record = _checked_record(self.root / self.units[unit] / PACKED, row, self.num_vertebrae)
        size = (int(record["image"].shape[0]), int(record["image"].shape[1]))
        pose = from_matrix(jnp.asarray(record["camera_from_world"]))
        return from_intrinsics(jnp.asarray(record["K"]), pose, float(record["sdd"]), size)


def open_xrays(
    folder: PathLike, *, subjects: Collection[str] | None = None, split: str | None = None
) -> XrayDataset:
    """Open a finished data set of `experiments.simulate_xrays`.

    It can be limited to some subjects, or to one split (training, validation, test). DataError for
    a folder that is not a data set or is not finished, and for an unknown subject or split.
    """
    root = Path(folder)
    manifest = read_json(root / "dataset.json")
    if not isinstance(manifest, dict) or manifest.get("format") not in (XRAY_FORMAT, _FIRST_FORMAT):
        raise DataError(f"{root}: dataset.json is not of the format {XRAY_FORMAT}")
    if not manifest.get("finished"):
        raise DataError(f"{root} is not finished: run simulate_xrays for the remaining shards")
    scans = _chosen(root, _checked_scans(root, manifest.get("scans")), subjects, split)
    units = [(index, unit) for index, scan in enumerate(scans) for unit in scan["units"]]
    return XrayDataset(
        root=root,
        manifest=manifest,
        subjects=tuple(scan["subject"] for scan in scans),
        units=tuple(unit["folder"] for _, unit in units),
        rows=tuple(
            (scan, position, row)
            for position, (scan, unit) in enumerate(units)
            for row in range(unit["num_radiographs"])
        ),
        num_vertebrae=max(len(scan["levels"]) for scan in scans),
    )


def xray_loader(
    folder: PathLike,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    num_epochs: int | None = None,
    num_workers: int = 0,
    subjects: Collection[str] | None = None,
    split: str | None = None,
) -> Any:
    """Make a grain IterDataset of batches, shuffled anew in every epoch and prefetched.

    Its iterator yields dictionaries of arrays with a leading batch axis (see `XrayDataset`). To
    resume with the next batch, pass `iterator.get_state()` to `set_state` of a new iterator of the
    same loader. `num_epochs` None repeats for ever; an incomplete last batch of an epoch is
    dropped. Files are read in threads, or in `num_workers` processes; content and order are the
    same. DataError as for `open_xrays`, if grain is not installed, and if there are fewer
    radiographs than one batch.
    """
    reader = grain()
    dataset = open_xrays(folder, subjects=subjects, split=split)
    if not 1 <= batch_size <= len(dataset):
        raise DataError(
            f"{folder} has {len(dataset)} radiographs: a batch of {batch_size} is not possible"
        )
    rows = reader.MapDataset.source(dataset).seed(seed)
    rows = rows.shuffle() if shuffle else rows
    # Batch before repeating: a batch never mixes two epochs.
    batches = rows.batch(batch_size, drop_remainder=True).repeat(num_epochs)
    batches = batches.to_iter_dataset(reader.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain's processes ask absl for its flags
        workers = reader.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
        batches = batches.mp_prefetch(workers)
    return batches


def grain() -> Any:
    """Import grain, the prefetching loader. DataError if it is not installed."""
    try:
        return importlib.import_module("grain")
    except ImportError as error:
        raise DataError("the loader needs grain: pip install 'dartjax[data]'") from error


def _checked_scans(root: Path, scans: Any) -> list[dict[str, Any]]:
    """Return the scans of a manifest. DataError unless each has its subject, levels and units."""
    where = f"{root / 'dataset.json'}"
    if not isinstance(scans, list) or not scans:
        raise DataError(f"{where}: scans must be a list of at least one scan")
    for number, scan in enumerate(scans, 1):
        place = f"{where}: scan {number}"
        if not isinstance(scan, dict) or not isinstance(scan.get("units"), list):
            raise DataError(f"{place}: an object with subject, split, levels and units is needed")
        for name in ("subject", "split"):
            if not isinstance(scan.get(name), str):
                raise DataError(f"{place}: {name} must be a text")
        list_of_texts(f"{place}: levels", scan.get("levels"))
        for unit in scan["units"]:
            count = unit.get("num_radiographs") if isinstance(unit, dict) else None
            if type(count) is not int or count < 0 or not isinstance(unit.get("folder"), str):
                raise DataError(f"{place}: a unit needs its folder and num_radiographs")
    subjects = [scan["subject"] for scan in scans]
    if len(set(subjects)) < len(subjects):
        raise DataError(f"{where}: a subject is listed twice")
    return scans


def _listed_pairs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pairs of a unit with their places in the file, for messages."""
    content = read_json(path)
    pairs = content.get("pairs") if isinstance(content, dict) else None
    if not isinstance(pairs, list):
        raise DataError(f"{path}: no list of pairs: run simulate_xrays again")
    for number, pair in enumerate(pairs, 1):
        place = f"{path}: pair {number}"
        if not isinstance(pair, dict) or not isinstance(pair.get("views"), list):
            raise DataError(f"{place}: an object with views and angle_deg is needed")
        yield place, pair


def _packed(path: Path) -> np.ndarray:
    try:
        records = map_array(path)
        fields = records.dtype.fields or {}
        image, labels = fields["image"][0].shape, fields["labels"][0].shape
        known = [radiograph_record(image, labels[0], bodies=bodies) for bodies in (True, False)]
        if records.ndim != 1 or records.dtype not in known:
            raise KeyError("fields")
    except (DataError, KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: not the radiographs of a data set, or damaged ({error}): run simulate_xrays "
            "again"
        ) from error
    return records


def _checked_record(path: Path, row: int, num_vertebrae: int) -> np.void:
    """Return one record. DataError if it is not there, or its camera is not valid."""
    records = _packed(path)
    if row >= len(records) or len(records["labels"][0]) > num_vertebrae:
        raise DataError(
            f"{path}: {len(records)} radiographs with {records['labels'].shape[1]} vertebrae, but "
            "dataset.json says otherwise: run simulate_xrays again"
        )
    record = records[row]
    if not _is_camera(record):
        raise DataError(f"{path}: damaged: radiograph {row} has no valid camera")
    return record


def _is_camera(record: np.void) -> bool:
    """Return whether a record has a rigid pose, a distance and focal lengths."""
    K, pose, sdd = (np.asarray(record[n], np.float64) for n in ("K", "camera_from_world", "sdd"))
    rotation, shift = pose[:3, :3], pose[:3, 3]
    is_rigid = (np.abs(rotation @ rotation.T - np.eye(3)) < 1e-3).all()
    is_near = (np.abs(shift) < _FARTHEST_MM).all() and 0.0 < sdd < _FARTHEST_MM
    return bool(is_rigid and is_near and np.isfinite(K).all() and (np.diag(K) > 0.0).all())


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """Pad with vertebrae of label 0, with empty masks and unknown values."""
    fill = np.nan if np.issubdtype(values.dtype, np.floating) else 0
    more = [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, more, constant_values=fill)


def _chosen(
    root: Path,
    scans: Sequence[dict[str, Any]],
    subjects: Collection[str] | None,
    split: str | None,
) -> list[dict[str, Any]]:
    known = [scan["subject"] for scan in scans]
    for subject in subjects or ():
        if subject not in known:
            raise DataError(f"{root}: {unknown_name('subject', subject, known)}")
    splits = sorted({scan["split"] for scan in scans if scan["split"]})
    if split is not None and split not in splits:
        raise DataError(
            f"{root}: no split {split!r}; its splits are: {', '.join(splits) or 'none'}"
        )
    chosen = [s for s in scans if subjects is None or s["subject"] in subjects]
    chosen = [s for s in chosen if split is None or s["split"] == split]
    if not chosen:
        raise DataError(f"{root}: none of {len(scans)} subjects is selected")
    return chosen
