"""Load and save sets of shape models and their cards.

A set is a folder with `models.npz` (no pickle) and `card.json` (subjects, sources with licences,
command, quality). Several sets are packaged. They were built from different subjects, so that for
every subject with reported results there is a set that has not seen it.

In `models.npz`: `faces`, `mirror`, `parts` (common to all levels); per region `REGION/modes`;
per level `LEVEL/mean_shape` and its annotations. Means are integers in units of 0.05 micrometres,
modes 16-bit integers in units of 1 micrometre (before 0.2: as means); weights, which must sum to 1,
are kept as they are.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._errors import DataError
from dartjax.anatomy import region_of, unknown_name
from dartjax.data._atomic import publish_arrays
from dartjax.data.packaged._stored import CARD, PathLike, open_arrays, read_card, write_stored
from dartjax.ssm import CarriedPoints, ShapeModel, truncate
from dartjax.ssm.build import Template, Topology

SHAPE_MODELS = pathlib.Path(__file__).parents[2] / "assets" / "ssm"
TEMPLATE = SHAPE_MODELS / "template.npz"
_MODELS = "models.npz"
# Levels that only some people have, and the level whose shape model they use.
SUPERNUMERARY = {"T13": "T12", "L6": "L5"}
_COMMON = ("faces", "mirror", "parts")
_POINTS = ("landmark_points", "backup_points", "path_points", "isthmus_points")
_STEP_MM = 5e-5
_MODE_STEP_MM = 1e-3  # of 16-bit modes; 40 modes at random are off by 0.002 mm
_FIELDS = ("name", "subjects_included", "sources", "levels")


def load_shape_model(
    level: str,
    *,
    exclude: Iterable[str] = (),
    path: PathLike | None = None,
    permissive: bool = False,
    num_modes: int = 15,
) -> ShapeModel:
    """Load the shape model of one level ("T1" to "L5"; "T13" and "L6" use the level above).

    The model comes from the set `path` (a folder, or the name of a packaged set), or else from the
    packaged set with the most subjects that has seen none of `exclude`; with `permissive`, from
    sets under the Apache licence only. The mean belongs to the level, the modes to its region.
    DataError for a missing or damaged set, an unknown level, excluded subjects that every set (or
    the one in `path`) has seen, and more modes than are stored.
    """
    folder = shape_model_set(exclude, path=path, permissive=permissive)
    stored = SUPERNUMERARY.get(level, level)
    model = _read_model(folder / _MODELS, stored, level)
    if num_modes > model.num_modes:
        raise DataError(
            f"{folder} holds {model.num_modes} modes per region, not {num_modes}: build a set "
            "with more (dartjax.ssm.build; docs/shape_models.md), or request fewer"
        )
    return truncate(model, num_modes)


def shape_model_set(
    exclude: Iterable[str] = (), *, path: PathLike | None = None, permissive: bool = False
) -> pathlib.Path:
    """Return the folder of the set of shape models that has seen none of `exclude`.

    Among the packaged sets, it is the one with the most subjects, with `permissive` of those under
    the Apache licence (sets made from VerSe are CC BY-SA 4.0); `path` names a packaged set or a
    folder instead. DataError if no such set exists.
    """
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    folders = [_folder_of(path)] if path is not None else _packaged_sets()
    cards = {folder: shape_model_card(folder) for folder in folders}
    if permissive and path is None:
        cards = {f: card for f, card in cards.items() if card.get("licence") == "Apache-2.0"}
        folders = list(cards)
    seen = {f: [s for s in exclude if includes_subject(card, s)] for f, card in cards.items()}
    unseen = [folder for folder in folders if not seen[folder]]
    if not unseen:
        raise DataError(
            f"the shape models in {folders[0] if path is not None else SHAPE_MODELS} were built "
            f"with {', '.join(seen[folders[0]])}: results on them would leak; build a set without "
            "them (dartjax.ssm.build; docs/shape_models.md) and give its folder"
        )
    return max(unseen, key=lambda folder: len(cards[folder]["subjects_included"]))


def shape_model_levels(path: PathLike | None = None) -> tuple[str, ...]:
    """Return the levels of a set, from head to foot."""
    return tuple(shape_model_card(path)["levels"])


def shape_model_card(path: PathLike | None = None) -> dict[str, Any]:
    """Read the card of a set, by default of the packaged set with the most subjects.

    The card holds name, subjects_included, sources, levels and quality. DataError when it is
    missing or damaged, or is another kind of card.
    """
    folder = shape_model_set() if path is None else _folder_of(path)
    card = read_card(
        folder, data_file=_MODELS, fields=_FIELDS, what="shape models", maker="save_shape_models"
    )
    if not isinstance(card["levels"], list | dict):
        raise DataError(f"{folder / CARD}: levels must be a list, or an object by level")
    return card


def includes_subject(card: Mapping[str, Any], subject: str, ct_hash: str | None = None) -> bool:
    """Return whether the model of this card was made with a subject.

    Subjects are compared by id (ignoring "sub-" and case) or by the hash of their CT.
    """
    if ct_hash is not None and ct_hash in card.get("ct_hashes", ()):
        return True
    return same_subject(subject, card["subjects_included"])


def same_subject(subject: str, names: Iterable[str]) -> bool:
    """Return whether a subject is among names, ignoring "sub-" and case."""
    return _plain(subject) in {_plain(name) for name in names}


def save_shape_models(
    folder: PathLike, models: Mapping[str, ShapeModel], card: Mapping[str, Any]
) -> None:
    """Write a set of shape models by level.

    All levels share faces, mirror and parts; the levels of a region share its modes.
    """
    arrays: dict[str, Any] = {}
    for level, model in models.items():
        arrays |= {name: np.asarray(getattr(model, name), np.int16) for name in _COMMON}
        arrays[f"{region_of(level)}/modes"] = _quantized_modes(model.modes)
        arrays[f"{level}/mean_shape"] = _quantized(model.mean_shape)
        for name in _POINTS:
            points = getattr(model, name)
            arrays[f"{level}/{name}/vertices"] = np.asarray(points.vertices, np.int16)
            arrays[f"{level}/{name}/weights"] = np.asarray(points.weights, np.float32)
    write_stored(folder, _MODELS, arrays, card)


def save_template(file: PathLike, template: Template) -> None:
    """Write the template mesh that training shapes are registered with."""
    arrays: dict[str, Any] = {
        name: getattr(template.topology, name).astype(np.int16) for name in _COMMON
    }
    arrays |= {level: _quantized(shape) for level, shape in template.level_shapes.items()}
    publish_arrays(pathlib.Path(file), arrays)


def load_template(file: PathLike = TEMPLATE) -> Template:
    """Load the packaged template mesh, or one from a file. DataError if missing or damaged."""
    with open_arrays(file, problem="is not a template, or damaged") as arrays:
        topology = Topology(*(arrays[name].astype(np.int64) for name in _COMMON))
        levels = [name for name in arrays.files if name not in _COMMON]
        shapes = {level: arrays[level] * _STEP_MM for level in levels}
        count = len(topology.mirror)
        _check_indices(count, *topology[:2])
        if any(shape.shape != (count, 3) for shape in shapes.values()):
            raise ValueError("shapes of different sizes")
        return Template(topology, shapes)


def _plain(subject: str) -> str:
    return subject.lower().removeprefix("sub-")


def _folder_of(path: PathLike) -> pathlib.Path:
    """Return the folder of a set, given by its path or by the name of a packaged set."""
    packaged = SHAPE_MODELS / path
    is_name = pathlib.Path(path).name == str(path) and (packaged / CARD).is_file()
    return packaged if is_name and not pathlib.Path(path).exists() else pathlib.Path(path)


def _packaged_sets() -> list[pathlib.Path]:
    folders = sorted(card.parent for card in SHAPE_MODELS.glob(f"*/{CARD}"))
    if not folders:
        raise DataError(f"no shape models in {SHAPE_MODELS}: install dartjax again")
    return folders


def as_stored(lengths: np.ndarray) -> np.ndarray:
    """Round lengths in mm to the precision of the file format."""
    return _quantized(lengths) * _STEP_MM


def _quantized(values: Any) -> np.ndarray:
    return np.round(np.asarray(values, np.float64) / _STEP_MM).astype(np.int32)


def _quantized_modes(modes: Any) -> np.ndarray:
    whole = np.round(np.asarray(modes, np.float64) / _MODE_STEP_MM)
    if np.abs(whole).max() > np.iinfo(np.int16).max:
        raise DataError("a mode moves a vertex by over 32 mm per standard deviation")
    return whole.astype(np.int16)


def _read_model(file: pathlib.Path, stored_level: str, level: str) -> ShapeModel:
    with open_arrays(file) as arrays:
        levels = [key.split("/")[0] for key in arrays.files if key.endswith("/mean_shape")]
        if stored_level not in levels:
            raise DataError(f"{file}: {unknown_name('level', level, levels)}")
        with jax.ensure_compile_time_eval():  # arrays, not tracers, also if a jitted caller loads
            return _assembled(arrays, stored_level)


def _assembled(arrays: Mapping[str, np.ndarray], level: str) -> ShapeModel:
    def lengths(name: str):
        values = arrays[name]
        step = _MODE_STEP_MM if values.dtype == np.int16 else _STEP_MM
        return jnp.asarray(values * step, jnp.float32)

    def points(name: str) -> CarriedPoints:
        vertices = jnp.asarray(arrays[f"{level}/{name}/vertices"], jnp.int32)
        return CarriedPoints(vertices, jnp.asarray(arrays[f"{level}/{name}/weights"]))

    common = {name: jnp.asarray(arrays[name], jnp.int32) for name in _COMMON}
    model = ShapeModel(
        mean_shape=lengths(f"{level}/mean_shape"),
        modes=lengths(f"{region_of(level)}/modes"),
        faces=common["faces"],
        mirror=common["mirror"],
        parts=common["parts"],
        landmark_points=points("landmark_points"),
        backup_points=points("backup_points"),
        path_points=points("path_points"),
        isthmus_points=points("isthmus_points"),
    )
    _check_shapes(model)
    return model


def _check_shapes(model: ShapeModel) -> None:
    """Raise ValueError unless the parts of a shape model fit together."""
    count = len(model.mean_shape)
    carried = [getattr(model, name) for name in _POINTS]
    sizes_fit = model.mean_shape.shape == (count, 3) and model.modes.shape[1:] == (count, 3)
    if not sizes_fit or any(p.vertices.shape != p.weights.shape for p in carried):
        raise ValueError("arrays of different sizes")
    if not all(np.isfinite(np.asarray(p.weights)).all() for p in carried):
        raise ValueError("weights that are not finite")
    _check_indices(count, model.faces, model.mirror, *(p.vertices for p in carried))


def _check_indices(count: int, faces: Any, mirror: Any, *others: Any) -> None:
    """Raise ValueError unless all indices are those of `count` vertices."""
    arrays = [np.asarray(array) for array in (faces, mirror, *others)]
    if arrays[0].ndim != 2 or arrays[0].shape[1] != 3 or arrays[1].shape != (count,):
        raise ValueError("faces or mirror of another shape")
    if any(array.size and not 0 <= array.min() <= array.max() < count for array in arrays):
        raise ValueError("indices of vertices that are not there")
