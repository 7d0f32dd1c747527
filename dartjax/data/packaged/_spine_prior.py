"""Load and save the prior of the whole spine: its numbers and its card.

A folder holds `prior.npz` (no pickle) and `card.json` (sources with licences, people, command,
quality). Two are packaged: one of all scans, and one that no person of VerSe is in.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._errors import DataError
from dartjax.data.packaged._stored import PathLike, open_arrays, read_card, write_stored
from dartjax.ssm import SPINE_LEVELS, SpinePrior, num_spine_values
from dartjax.transforms import from_matrix

SPINE_PRIORS = pathlib.Path(__file__).parents[2] / "assets" / "spine"
_PRIOR = "prior.npz"
_ALL, _WITHOUT_VERSE = "all", "without_verse"
_FIELDS = ("name", "sources", "levels", "num_people", "command", "quality")
_ARRAYS = ("mean", "prone_shift", "loadings", "noise", "T_vertebra_frame")


def load_spine_prior(
    *,
    exclude: Iterable[str] = (),
    position: str = "supine",
    path: PathLike | None = None,
) -> SpinePrior:
    """Load the prior of the whole spine for people lying supine or prone.

    The prior is the packaged one of all scans, without VerSe if one of `exclude` is a person of
    VerSe, or that in the folder `path`. DataError for a missing or damaged file, or an unknown
    position.
    """
    if position not in ("supine", "prone"):
        raise DataError(f"position {position!r} is not supine or prone")
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    name = _WITHOUT_VERSE if any(map(_is_of_verse, exclude)) else _ALL
    folder = SPINE_PRIORS / name if path is None else pathlib.Path(path)
    if spine_prior_card(folder)["levels"] != list(SPINE_LEVELS):
        raise DataError(f"{folder}: not a prior of the levels T1 to L6: install dartjax again")
    with open_arrays(folder / _PRIOR) as arrays:
        parts = {key: np.asarray(arrays[key], np.float64) for key in _ARRAYS}
        _check(parts)
    shift = parts["prone_shift"] if position == "prone" else 0.0
    with jax.ensure_compile_time_eval():  # arrays, not tracers, also if a jitted caller loads
        return SpinePrior(
            mean=jnp.asarray(parts["mean"] + shift, jnp.float32),
            loadings=jnp.asarray(parts["loadings"], jnp.float32),
            noise=jnp.asarray(parts["noise"], jnp.float32),
            T_vertebra_frame=jax.vmap(from_matrix)(
                jnp.asarray(parts["T_vertebra_frame"], jnp.float32)
            ),
        )


def spine_prior_card(path: PathLike | None = None) -> dict[str, Any]:
    """Read the card of a prior of the spine, by default of the packaged one of all scans."""
    folder = SPINE_PRIORS / _ALL if path is None else pathlib.Path(path)
    return read_card(
        folder,
        data_file=_PRIOR,
        fields=_FIELDS,
        what="a prior of the spine",
        maker="save_spine_prior",
    )


def save_spine_prior(
    folder: PathLike, arrays: Mapping[str, np.ndarray], card: Mapping[str, Any]
) -> None:
    """Write a prior and its card. `arrays` are the fields of `ssm.build.SpineStatistics` and
    `T_vertebra_frame` of all levels, as matrices."""
    stored = {name: np.asarray(arrays[name], np.float32) for name in _ARRAYS}
    write_stored(folder, _PRIOR, stored, {**card, "levels": list(SPINE_LEVELS)})


def _is_of_verse(subject: str) -> bool:
    plain = subject.lower().removeprefix("sub-")
    return plain.startswith("verse") or (plain.startswith("gl") and plain[2:3].isdigit())


def _check(parts: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless the arrays of a prior fit together."""
    n = num_spine_values()
    vectors = [parts[name] for name in ("mean", "prone_shift", "noise")]
    if any(vector.shape != (n,) for vector in vectors) or parts["loadings"].shape[:1] != (n,):
        raise ValueError("arrays of different sizes")
    if parts["T_vertebra_frame"].shape != (len(SPINE_LEVELS), 4, 4):
        raise ValueError("no frames of all levels")
    if not all(np.isfinite(part).all() for part in parts.values()) or (parts["noise"] <= 0).any():
        raise ValueError("values that are not finite, or noise that is not positive")
