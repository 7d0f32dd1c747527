"""Shape models shipped with the package, and the card that says what is in them.

An asset is a folder with `templates.npz` (per level `LEVEL/mean_shape`, `LEVEL/modes`, ...; no
pickle) and `card.json` (subjects included, sources with licences, seed, command, quality).
"""

import json
import pathlib
import zipfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from dartjax.data._errors import DataError
from dartjax.data._levels import unknown_name
from dartjax.ssm import ShapeModel, gaussian_process_model, truncate

DEFAULT_SHAPE_MODELS = pathlib.Path(__file__).parent.parent / "assets" / "shape_models"
_FIELDS = tuple(ShapeModel.__dataclass_fields__)
_SUPERNUMERARY = {"T13": "T12", "L6": "L5"}


def load_shape_model(
    level: str,
    *,
    exclude_subject: str | None = None,
    path: str | pathlib.Path | None = None,
    num_modes: int = 15,
) -> ShapeModel:
    """The shape model of one level ("T1" to "L5"; "T13" and "L6" take the level above).

    `path` is another asset folder. More modes than the asset stores are computed from its
    Gaussian process (about 2 s). DataError for an asset that is missing or damaged, an unknown
    level, and a model that contains `exclude_subject`.
    """
    folder = _folder(path)
    if exclude_subject is not None and includes_subject(shape_model_card(path), exclude_subject):
        raise DataError(
            f"the shape models in {folder} were built with subject {exclude_subject!r}: numbers on "
            "that subject would leak; choose models whose card excludes it"
        )
    model = _read_model(folder / "templates.npz", _SUPERNUMERARY.get(level, level), level)
    if num_modes <= model.num_modes:
        return truncate(model, num_modes)
    return gaussian_process_model(model, num_modes)


def shape_model_levels(path: str | pathlib.Path | None = None) -> tuple[str, ...]:
    """The levels an asset has, from head to foot."""
    return tuple(shape_model_card(path)["levels"])


def shape_model_card(path: str | pathlib.Path | None = None) -> dict[str, Any]:
    """The card of an asset folder: name, subjects_included, sources, levels, quality.

    DataError when it is missing, damaged or no such card.
    """
    file = _folder(path) / "card.json"
    try:
        card = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is damaged ({error}): install dartjax again") from error
    missing = {"name", "subjects_included", "sources", "levels"} - set(card)
    if missing:
        raise DataError(f"{file} lacks {', '.join(sorted(missing))}: not a shape-model card")
    return card


def includes_subject(card: dict[str, Any], subject: str) -> bool:
    """Whether a model behind this card has seen a subject (ids compared without "sub-" and
    without case)."""
    return _plain(subject) in {_plain(name) for name in card["subjects_included"]}


def save_shape_models(
    folder: str | pathlib.Path, models: dict[str, ShapeModel], card: dict[str, Any]
) -> None:
    """Write an asset folder; modes in half precision (2 micrometres), the rest as it is."""
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"{level}/{name}": _stored(name, getattr(model, name))
        for level, model in models.items()
        for name in _FIELDS
    }
    np.savez_compressed(target / "templates.npz", **arrays)
    (target / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def _plain(subject: str) -> str:
    return subject.lower().removeprefix("sub-")


def _folder(path: str | pathlib.Path | None) -> pathlib.Path:
    folder = DEFAULT_SHAPE_MODELS if path is None else pathlib.Path(path)
    for name in ("templates.npz", "card.json"):
        if not (folder / name).is_file():
            raise DataError(
                f"no {name} in {folder}: give a folder written by experiments/build_templates.py"
            )
    return folder


def _stored(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if name == "modes":
        return array.astype(np.float16)
    return array.astype(np.int16 if array.dtype.kind == "i" else np.float32)


def _read_model(file: pathlib.Path, stored_level: str, level: str) -> ShapeModel:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            levels = list(dict.fromkeys(key.split("/")[0] for key in arrays.files))
            if stored_level not in levels:
                raise DataError(f"{file}: {unknown_name('level', level, levels)}")
            read = {name: arrays[f"{stored_level}/{name}"] for name in _FIELDS}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}): install dartjax again") from error
    kinds = {"i": jnp.int32, "f": jnp.float32}
    return ShapeModel(**{k: jnp.asarray(v, kinds[v.dtype.kind]) for k, v in read.items()})
