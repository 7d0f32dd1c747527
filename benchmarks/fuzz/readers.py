"""The readers to try: small valid files of every kind, and the value that each reader returns."""

import collections
import contextlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import nibabel as nib
import numpy as np
import tifffile
import trimesh
from absl import flags
from PIL import Image

from benchmarks.fuzz import samples
from benchmarks.fuzz.mutations import Form
from dartjax import cli, data, robot
from dartjax.cli._commands import Info
from dartjax.cli._info import main as info
from dartjax.mesh import TriangleMesh

Folder = pathlib.Path
Value = dict[str, Any]  # arrays, numbers and texts by name


class Reader(NamedTuple):
    """One reader: its files, which of them are damaged, and what it returns for their folder."""

    name: str
    files: Mapping[str, Form]  # the files to damage
    make: Callable[[Folder], object]
    read: Callable[[Folder], Value]
    refusals: tuple[type[Exception], ...] = (data.DataError,)
    may_be_infinite: tuple[str, ...] = ()  # parts of names of values
    problem: Callable[[Value], str] = lambda value: ""
    takes_any_text: bool = False
    repairs: bool = False  # a damaged file is made again, so the value is always the same


def all_readers() -> list[Reader]:
    """Return all readers, in a fixed order."""
    return [
        *_nifti_readers(),
        *_mesh_readers(),
        *_image_readers(),
        *_document_readers(),
        *_folder_readers(),
        *_info_readers(),
    ]


def _nifti_readers() -> list[Reader]:
    hu, labels = samples.scan()

    def save(name: str, values: np.ndarray) -> Callable[[Folder], object]:
        return lambda folder: nib.save(samples.image(values), folder / name)

    def case(folder: Folder) -> Value:
        found = data.load_case(data.Subject("x", folder / "ct.nii", folder / "mask.nii.gz"))
        where = np.asarray(found.ct.world_from_voxel)
        return {"ct": found.ct.values, "affine": where, "levels": ",".join(found.levels)}

    def ct(name: str) -> Callable[[Folder], Value]:
        return lambda folder: _leaves(data.load_ct(folder / name))

    def mask(name: str) -> Callable[[Folder], Value]:
        return lambda folder: _leaves(data.load_labels(folder / name))

    def both(folder: Folder) -> None:
        save("ct.nii", hu)(folder)
        save("mask.nii.gz", labels)(folder)

    forms: dict[str, Form] = {"": "nifti", ".gz": "nifti.gz"}
    readers = []
    for suffix, form in forms.items():
        ct_name, mask_name = f"ct.nii{suffix}", f"mask.nii{suffix}"
        readers += [
            Reader(f"load_ct {ct_name}", {ct_name: form}, save(ct_name, hu), ct(ct_name)),
            Reader(
                f"load_labels {mask_name}",
                {mask_name: form},
                save(mask_name, labels),
                mask(mask_name),
            ),
        ]
    return [
        *readers,
        Reader("load_case", {"ct.nii": "nifti", "mask.nii.gz": "nifti.gz"}, both, case),
    ]


def _mesh_readers() -> list[Reader]:
    ball = trimesh.creation.icosphere(subdivisions=1, radius=20.0)
    contents: dict[str, tuple[Form, Any]] = {
        "binary.ply": ("binary", ball.export(file_type="ply")),
        "ascii.ply": ("text", ball.export(file_type="ply", encoding="ascii")),
        "binary.stl": ("binary", ball.export(file_type="stl")),
        "ascii.stl": ("text", ball.export(file_type="stl_ascii")),
        "surface.obj": ("text", samples.obj(ball)),
    }

    def reader(name: str, form: Form, content: str | bytes) -> Reader:
        packed = content.encode() if isinstance(content, str) else content
        return Reader(
            f"load_mesh {name}",
            {name: form},
            lambda folder: (folder / name).write_bytes(packed),
            lambda folder: _leaves(data.load_mesh(folder / name)),
            problem=_mesh_problem,
        )

    return [reader(name, form, content) for name, (form, content) in contents.items()]


def _mesh_problem(value: Value) -> str:
    vertices, faces = (np.asarray(part) for part in value.values())
    if faces.min() < 0 or faces.max() >= len(vertices):
        return "a face names a vertex that is not there"
    edges = [
        (int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)
    ]
    counts = collections.Counter(edge for edge in edges if edge[0] != edge[1])
    if any(count != counts[b, a] for (a, b), count in counts.items()):
        return "not a closed surface, or faces that are turned differently"
    corners = vertices[faces].astype(np.float64)
    return "" if np.linalg.det(corners - corners.mean((0, 1))).sum() > 0.0 else "faces inward"


def _image_readers() -> list[Reader]:
    gray = samples.radiograph()
    eight = (gray >> 8).astype(np.uint8)
    line = (gray / 8192.0).astype(np.float32)
    writers: dict[str, tuple[Form, Callable[[pathlib.Path], object]]] = {
        "8.png": ("checked", lambda path: Image.fromarray(eight).save(path)),
        "16.png": ("checked", lambda path: Image.fromarray(gray).save(path)),
        "alpha.png": ("checked", lambda path: path.write_bytes(samples.grey_alpha_png(gray))),
        "16.tif": ("binary", lambda path: tifffile.imwrite(path, gray)),
        "white.tif": (
            "binary",
            lambda path: tifffile.imwrite(path, gray, photometric="miniswhite"),
        ),
        "float.tif": ("binary", lambda path: tifffile.imwrite(path, line)),
        "16.npy": ("binary", lambda path: np.save(path, gray)),
        "float.npy": ("binary", lambda path: np.save(path, line)),
    }

    def reader(name: str, form: Form, write: Callable[[pathlib.Path], object]) -> Reader:
        kind: data.Kind = "intensity" if name.startswith("16") else "line_integral"
        return Reader(
            f"load_radiograph {name}",
            {name: form},
            lambda folder: write(folder / name),
            lambda folder: {"image": data.load_radiograph(folder / name, kind)},
            problem=_image_problem,
        )

    return [reader(name, form, write) for name, (form, write) in writers.items()]


def _image_problem(value: Value) -> str:
    image = np.asarray(value["image"])
    return "" if image.min() >= -1.0 and image.max() <= 90.0 else "not line integrals"


def _document_readers() -> list[Reader]:
    documents: dict[str, tuple[str, Any, Callable[[pathlib.Path], Any]]] = {
        "load_cameras": ("cameras.json", samples.CAMERAS, data.load_cameras),
        "load_starts": ("init.json", samples.STARTS, _starts),
        "load_init": ("one.json", samples.STARTS[1], lambda path: _start(data.load_init(path))),
        "read_centroids": ("x_ctd.json", samples.CENTROIDS, _centroids),
        "read_ids json": ("ids.json", ["sub-a", "b", "c"], data.read_ids),
    }

    def reader(name: str, file: str, content: Any, read: Callable[[pathlib.Path], Any]) -> Reader:
        return Reader(
            name,
            {file: "json"},
            lambda folder: (folder / file).write_text(json.dumps(content), encoding="utf-8"),
            lambda folder: _leaves(read(folder / file)),
            takes_any_text=name.startswith("read_ids"),
        )

    robot_file = "arm.urdf"
    return [
        *(reader(name, *rest) for name, rest in documents.items()),
        Reader(
            "read_ids text",
            {"ids.txt": "text"},
            lambda folder: (folder / "ids.txt").write_text("# ids\nsub-a\nb\nc # last\n"),
            lambda folder: _leaves(data.read_ids(folder / "ids.txt")),
            takes_any_text=True,
        ),
        Reader(
            "chain_from_urdf",
            {robot_file: "xml"},
            lambda folder: (folder / robot_file).write_text(samples.URDF, encoding="utf-8"),
            lambda folder: _leaves(robot.chain_from_urdf(folder / robot_file)),
            refusals=(robot.BadParameter,),
            may_be_infinite=("lower", "upper"),
        ),
        Reader("config.json", {"config.json": "json"}, _write_config, _config),
    ]


def _start(start: data.InitialEstimate) -> Value:
    return {"center": start.center_world, "axes": start.axes_world, **start.landmarks_world}


def _starts(path: pathlib.Path) -> Value:
    return {level: _start(start) for level, start in data.load_starts(path).items()}


def _centroids(path: pathlib.Path) -> Value:
    return dict(data.read_centroids(path, samples.SHAPE, samples.AFFINE))


def _write_config(folder: Folder) -> None:
    flags_of_run = {"seed": 3, "preset": "default", "levels": "L1-L3", "offline": True}
    content = {"experiment": "dartjax demo", "command": ["dartjax", "demo"], "flags": flags_of_run}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def _config(folder: Folder) -> Value:
    job = samples.demo_job()
    try:
        values = cli.launch.parsed(job, [f"--config={folder / 'config.json'}"])
    except flags.Error as error:
        raise data.DataError(str(error)) from error
    return {name: str(values[name].value) for name in ("seed", "levels", "offline")}


def _folder_readers() -> list[Reader]:
    def subjects(folder: Folder) -> Value:
        found = data.find_subjects(folder)
        return {s.id: f"{s.split} {s.parents} {s.dataset_kind} {s.dataset}" for s in found}

    def manifest(folder: Folder) -> Value:
        found = data.load_manifest(folder / "manifest.json")
        return {s.id: f"{s} {found.levels[s.id]}".replace(str(folder), "") for s in found.subjects}

    def run(folder: Folder) -> Value:
        plans, record = data.read_plans(folder), data.read_record(folder)
        return _leaves([[p.subject, p.level, p.pair, p.paths] for p in plans]) | {
            name: str(record[name]) for name in data.RECORD_FIELDS
        }

    def weights(folder: Folder) -> Value:
        params, card = data.load_weights(folder, samples.WEIGHTS)
        return _leaves(params) | {"card": json.dumps(card["subjects_included"])}

    npz: Mapping[str, Form] = {"card.json": "json", "models.npz": "checked"}
    return [
        Reader(
            "find_subjects",
            {"participants.tsv": "table", "dataset_description.json": "json"},
            samples.write_cohort,
            subjects,
        ),
        Reader("find_subjects split", {"data_split.txt": "split"}, samples.write_split, subjects),
        Reader("load_manifest", {"manifest.json": "json"}, samples.write_manifest, manifest),
        Reader(
            "read_plans", {"paths.json": "json", "metrics.json": "json"}, samples.write_run, run
        ),
        Reader(
            "load_shape_model",
            npz,
            samples.write_shape_models,
            lambda folder: _leaves(data.load_shape_model("L1", path=folder)),
        ),
        Reader(
            "load_template",
            {"template.npz": "checked"},
            samples.write_template,
            lambda folder: _leaves(data.load_template(folder / "template.npz")),
        ),
        Reader(
            "load_weights",
            {"card.json": "json", "weights.npz": "checked"},
            samples.write_weights,
            weights,
        ),
        Reader(
            "load_failure_model",
            {"card.json": "json", "model.npz": "checked"},
            samples.write_failure_model,
            lambda folder: _leaves(data.load_failure_model(folder)[:-1]),
            may_be_infinite=("scale", "[2]"),
        ),
        Reader(
            "load_spine_prior",
            {"card.json": "json", "prior.npz": "checked"},
            samples.write_spine_prior,
            lambda folder: _leaves(data.load_spine_prior(path=folder)),
        ),
        Reader(
            "remembered",
            {samples.CACHE_FILE: "checked"},
            samples.write_cache,
            lambda folder: _leaves(samples.read_cache(folder)),
            repairs=True,
        ),
        Reader("open_xrays", samples.XRAY_FILES, samples.write_xrays, _xrays),
    ]


def _xrays(folder: Folder) -> Value:
    dataset = data.open_xrays(folder)
    value: Value = {
        "pairs": np.array(dataset.pairs(), np.float64).reshape(-1, 3),
        "length": len(dataset),
    }
    for row in range(len(dataset)):
        fields = dataset[row]
        value |= {f"{row}.{name}": fields[name] for name in ("image", "K", "labels", "masks")}
        value[f"{row}.source"] = dataset.camera(row).source
    return value


def _info_readers() -> list[Reader]:
    """Make `dartjax info` describe one file of every other kind; its facts must be JSON."""
    kinds: dict[str, Form] = {
        "ct.nii": "nifti",
        "mask.nii.gz": "nifti.gz",
        "16.png": "checked",
        "16.tif": "binary",
        "float.npy": "binary",
        "L1.ply": "binary",
        "cameras.json": "json",
        "init.json": "json",
        "x_ctd.json": "json",
        "spine.json": "json",
        "manifest.json": "json",
        "paths.json": "json",
        "metrics.json": "json",
    }

    def facts(name: str) -> Callable[[Folder], Value]:
        return lambda folder: {"facts": _facts_text(folder / name)}

    return [
        Reader(f"info {name}", {name: form}, samples.write_one_of_each, facts(name))
        for name, form in kinds.items()
    ]


def _facts_text(path: pathlib.Path) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        info(Info((str(path),), json=True))
    (found,) = json.loads(printed.getvalue(), parse_constant=_no_number)["files"]
    with contextlib.redirect_stdout(io.StringIO()):
        info(Info((str(path),)))
    return json.dumps([found["kind"], found["facts"], found["notes"]], sort_keys=True)


def _no_number(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _leaves(tree: Any) -> Value:
    """Name every leaf of a tree."""
    if isinstance(tree, data.XrayDataset | TriangleMesh):
        tree = [tree.vertices, tree.faces] if isinstance(tree, TriangleMesh) else tree
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in found}
