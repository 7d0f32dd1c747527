"""Write small valid files of every kind that dartjax reads; the same in every run."""

import dataclasses
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import tifffile
import trimesh
from PIL import Image

from benchmarks.fuzz.mutations import Form
from dartjax import cli, data
from dartjax.ssm import CarriedPoints, ShapeModel
from dartjax.ssm.build import Template, Topology

Folder = pathlib.Path

SHAPE = (28, 28, 40)
AFFINE = np.array([[2.0, 0, 0, -20], [0, 2.0, 0, -30], [0, 0, 2.0, 100], [0, 0, 0, 1]])
_CARM = {"sdd": 1020, "source_to_isocenter": 530, "isocenter": [0, -20, 300], "pixel_spacing": 0.4}
CAMERAS = [
    {
        "K": [[2628.9, 0, 384], [0, 2628.9, 384], [0, 0, 1]],
        "camera_from_world": [[-1, 0, 0, 10], [0, 0, -1, 300], [0, -1, 0, 510], [0, 0, 0, 1]],
        "sdd": 1020,
        "image_size": [768, 768],
    },
    {"view": "LAT_L", **_CARM, "image_size": [64, 48]},
    {"primary_deg": 30, "secondary_deg": -10, "in_plane_deg": 1.5, **_CARM, "image_size": [64, 64]},
]
STARTS = [
    {"level": "L1", "center_world": [1.5, -20, 310], "rotation_deg": [8, 0, 0]},
    {
        "level": "L2",
        "landmarks_world": {
            "superior_endplate_center": [0, 0, 13],
            "inferior_endplate_center": [0, 0, -13],
            "spinous_tip": [0, -60, -5],
        },
    },
    {"level": "L3", "center_world": [0, -20, 250], "axes_world": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
]
CENTROIDS = [
    {"direction": ["P", "I", "R"]},
    {"label": 20, "X": 10.5, "Y": 8.25, "Z": 14},
    {"label": 21, "X": 11, "Y": 22.5, "Z": 14},
    {"label": 26, "X": 1, "Y": 2, "Z": 3},
]
_LIMIT = 'effort="1" velocity="1"/></joint>'
URDF = f"""<robot name="arm"><link name="a"/><link name="b"/><link name="c"/><link name="d"/>
<joint name="1" type="revolute"><parent link="a"/><child link="b"/>
<origin xyz="0 0 .3" rpy="0 0 1"/><axis xyz="0 0 1"/><limit lower="-2" upper="2" {_LIMIT}
<joint name="2" type="prismatic"><parent link="b"/><child link="c"/>
<origin xyz=".1 0 0" rpy="0 1 0"/><axis xyz="0 1 0"/><limit lower="0" upper=".5" {_LIMIT}
<joint name="3" type="fixed"><parent link="c"/><child link="d"/><origin xyz="0 0 .1"/></joint>
</robot>
"""
WEIGHTS = {"layer": {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}, "last": np.zeros(2)}
CACHE_FILE = "kind/result.npz"
_CACHE_ENV = "DARTJAX_CACHE"
_UNIT = "sub-a/views-000"
XRAY_FILES: Mapping[str, Form] = {
    "dataset.json": "json",
    f"{_UNIT}/radiographs.npy": "binary",
    f"{_UNIT}/pairs.json": "json",
}


def scan() -> tuple[np.ndarray, np.ndarray]:
    """Make the HU and the labels of three vertebrae, L1 on top."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    hu, labels = np.full(SHAPE, -1000, np.int16), np.zeros(SHAPE, np.uint8)
    hu[2:26, 2:26] = 40
    for number, label in enumerate((22, 21, 20)):
        inside = ((index - [14, 14, 7 + 13 * number]) ** 2).sum(-1) < 5.5**2
        hu[inside], labels[inside] = 600, label
    return hu, labels


def image(values: np.ndarray) -> nib.Nifti1Image:
    """Make a NIfTI image with the same sform and qform."""
    made = nib.Nifti1Image(values, AFFINE)
    made.set_qform(AFFINE, code=1)
    return made


def radiograph() -> np.ndarray:
    """Make 16 bit pixels, brighter in the middle."""
    rows, columns = np.mgrid[:24, :20]
    return (9000 + 40000 * np.exp(-((rows - 12) ** 2 + (columns - 10) ** 2) / 60)).astype(np.uint16)


def grey_alpha_png(gray: np.ndarray) -> bytes:
    """Write a PNG of 16 bit grey with alpha, which Pillow cannot write."""
    pixels = np.stack([gray, np.full_like(gray, 65535)], -1).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 16, 4, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def obj(mesh: trimesh.Trimesh) -> str:
    """Write an OBJ file with normals, as modelling programs do."""
    lines = ["# a surface", "o ball"]
    lines += ["v {:.6f} {:.6f} {:.6f}".format(*point) for point in mesh.vertices]
    lines += ["vn {:.4f} {:.4f} {:.4f}".format(*normal) for normal in mesh.face_normals]
    faces = enumerate(mesh.faces + 1, 1)
    lines += [f"f {a}//{number} {b}//{number} {c}//{number}" for number, (a, b, c) in faces]
    return "\n".join(lines) + "\n"


def demo_job() -> Any:
    """Describe the command `dartjax demo`, whose config.json is read."""
    settings = dataclasses.make_dataclass(
        "Settings",
        [("levels", str | None, cli.setting(None, "")), ("offline", bool, cli.setting(False, ""))],
        frozen=True,
    )
    return cli.launch.Job(
        "demo", ("dartjax", "demo"), settings, lambda: lambda *_: 0, "", kind="command"
    )


def write_cohort(folder: Folder) -> None:
    """Write three pairs with participants and a description."""
    hu, labels = scan()
    for name in "abc":
        nib.save(image(hu), folder / f"sub-{name}_ct.nii")
        nib.save(image(labels), folder / f"sub-{name}_seg-vert_msk.nii")
    rows = [
        "participant_id\tsplit\tparents",
        "sub-a\ttest\t",
        "sub-b\tvalidation\tp1,p2",
        "sub-c\tn/a\tn/a",
    ]
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    about = {"Name": "small", "BIDSVersion": "1.8.0", "Synthetic": False}
    (folder / "dataset_description.json").write_text(json.dumps(about), encoding="utf-8")


def write_split(folder: Folder) -> None:
    """Write parallel folders with the file of splits of CTSpine1K."""
    hu, labels = scan()
    for name in ("x1", "x2"):
        for kind, values, suffix in (("volumes", hu, ""), ("labels", labels, "_seg")):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(image(values), folder / kind / f"{name}{suffix}.nii")
    text = "trainset:\nx1.nii.gz\ntest_public:\nx2.nii.gz\ntest_private:\n"
    (folder / "data_split.txt").write_text(text, encoding="utf-8")


def write_manifest(folder: Folder) -> None:
    """Write a cohort and its manifest."""
    write_cohort(folder)
    subjects = data.find_subjects(folder)
    hashed = [dataclasses.replace(s, ct_hash="00", mask_hash="11") for s in subjects]
    levels = {subject.id: ("L1", "L2") for subject in subjects}
    data.save_manifest(folder / "manifest.json", data.Manifest("m", tuple(hashed), levels))


def write_run(folder: Folder) -> None:
    """Write paths and results of a run."""
    ends = {"entry_point": [1.0, 2.0, 3.0], "target_point": [4.0, 5.0, 6.0]}
    paths = {f"a_{level}_pair0": {"left": ends, "right": ends} for level in ("L1", "T12")}
    record = {"dataset": "d", "dataset_kind": "synthetic", "ssm_excludes": ["a"], "ssm_leak": False}
    metrics = {"record": record, "summary": {"dice": 0.9, "bad": None}, "cases": [{"level": "L1"}]}
    _json(folder / "paths.json", {"frame": "patient", "unit": "mm", "paths": paths})
    _json(folder / "metrics.json", metrics)


def write_shape_models(folder: Folder) -> None:
    """Write a set of one level with a small ball as its mean shape."""
    ball = trimesh.creation.icosphere(subdivisions=1, radius=20.0)
    count = len(ball.vertices)

    def points(*shape: int) -> CarriedPoints:
        index = jnp.arange(int(np.prod(shape)) * 3).reshape(*shape, 3) % count
        return CarriedPoints(index.astype(jnp.int32), jnp.full((*shape, 3), 1 / 3, jnp.float32))

    model = ShapeModel(
        mean_shape=jnp.asarray(ball.vertices, jnp.float32),
        modes=jax.random.normal(jax.random.key(0), (15, count, 3)),
        faces=jnp.asarray(ball.faces, jnp.int32),
        mirror=jnp.arange(count, dtype=jnp.int32),
        parts=jnp.zeros(count, jnp.int32),
        landmark_points=points(10),
        backup_points=points(5),
        path_points=points(2, 2),
        isthmus_points=points(2, 4),
    )
    card = {"name": "small", "subjects_included": ["p1"], "sources": {}, "levels": ["L1"]}
    data.save_shape_models(folder, {"L1": model}, card)


def write_template(folder: Folder) -> None:
    """Write a template with two levels."""
    ball = trimesh.creation.icosphere(subdivisions=1, radius=20.0)
    count = len(ball.vertices)
    topology = Topology(np.asarray(ball.faces), np.arange(count), np.zeros(count, np.int64))
    shapes = {level: np.asarray(ball.vertices) * scale for level, scale in (("L1", 1), ("L2", 1.1))}
    data.save_template(folder / "template.npz", Template(topology, shapes))


def write_weights(folder: Folder) -> None:
    """Write the weights of a small network."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), WEIGHTS)
    card = {"name": "n", "preset": "small", "subjects_included": ["a"], "never_seen": ["b"]}
    data.save_weights(folder, params, {**card, "command": "c", "quality": {}})


def write_failure_model(folder: Folder) -> None:
    """Copy the packaged failure model."""
    data.save_failure_model(folder, data.load_failure_model())


def write_spine_prior(folder: Folder) -> None:
    """Copy the packaged prior of the spine."""
    prior = data.load_spine_prior()
    arrays = {name: np.asarray(getattr(prior, name)) for name in ("mean", "loadings", "noise")}
    shift = np.zeros_like(arrays["mean"])
    data.save_spine_prior(folder, {**arrays, "prone_shift": shift}, data.spine_prior_card())


def write_cache(folder: Folder) -> None:
    """Remember two arrays in a cache of this folder, under a fixed name."""
    target = folder / CACHE_FILE
    target.parent.mkdir(exist_ok=True)
    data.publish_arrays(target, {f"arr_{i}": leaf for i, leaf in enumerate(_made())})


def read_cache(folder: Folder) -> tuple[np.ndarray, ...]:
    """Read the remembered arrays, from the file under the name that `remembered` gives it."""
    earlier, os.environ[_CACHE_ENV] = os.environ.get(_CACHE_ENV), str(folder)
    kind = pathlib.Path(CACHE_FILE).parent
    try:
        named = next((p for p in (folder / kind).glob("*.npz") if p.name != "result.npz"), None)
        if named is None:
            data.remembered(str(kind), "1", [np.arange(3)], like=(0, 0), make=_made)
            (named,) = (p for p in (folder / kind).glob("*.npz") if p.name != "result.npz")
        named.write_bytes((folder / CACHE_FILE).read_bytes())
        return data.remembered(str(kind), "1", [np.arange(3)], like=(0, 0), make=_made)
    finally:
        if earlier is None:
            del os.environ[_CACHE_ENV]
        else:
            os.environ[_CACHE_ENV] = earlier


def _made() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(12.0).reshape(3, 4), np.arange(5)


def write_xrays(folder: Folder) -> None:
    """Write a data set of two radiographs of one scan."""
    count, size = 2, (16, 24)
    records = np.zeros(2, data.radiograph_record(size, count))
    for view, record in enumerate(records):
        record["view"], record["sdd"] = view, 1020.0
        record["image"] = np.arange(16 * 24).reshape(size) * 40
        record["K"] = [[2500, 0, 12], [0, 2500, 8], [0, 0, 1]]
        record["camera_from_world"] = CAMERAS[0]["camera_from_world"]
        record["labels"] = [20, 21]
        record["world_from_vertebra"] = np.eye(4)
    unit = folder / _UNIT
    unit.mkdir(parents=True)
    np.save(unit / data.PACKED, records)
    _json(unit / "pairs.json", {"pairs": [{"views": [0, 1], "angle_deg": 80.0}]})
    unit_facts = {"folder": _UNIT, "num_radiographs": 2}
    scans = [{"subject": "a", "split": "", "levels": ["L1", "L2"], "units": [unit_facts]}]
    _json(folder / "dataset.json", {"format": data.XRAY_FORMAT, "finished": True, "scans": scans})


def write_one_of_each(folder: Folder) -> None:
    """Write one file of every kind that `dartjax info` describes."""
    hu, labels = scan()
    write_manifest(folder)
    write_run(folder)
    nib.save(image(hu), folder / "ct.nii")
    nib.save(image(labels), folder / "mask.nii.gz")
    Image.fromarray(radiograph()).save(folder / "16.png")
    tifffile.imwrite(folder / "16.tif", radiograph())
    np.save(folder / "float.npy", (radiograph() / 8192.0).astype(np.float32))
    ball = trimesh.creation.icosphere(subdivisions=1, radius=20.0)
    (folder / "L1.ply").write_bytes(ball.export(file_type="ply"))
    path = {"entry_point": [0, 0, 0], "target_point": [0, 10, 0], "feasible": True}
    vertebra = {"level": "L1", "status": "converged", "abstained": False, "p_failure": 0.1}
    vertebra |= {"mesh": "L1.ply", "paths": {"left": path, "right": path}}
    documents = {"cameras": CAMERAS, "init": STARTS, "x_ctd": CENTROIDS}
    documents["spine"] = {"vertebrae": [vertebra], "frame": "patient", "views": 2, "warnings": []}
    for name, content in documents.items():
        _json(folder / f"{name}.json", content)


def _json(path: pathlib.Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
