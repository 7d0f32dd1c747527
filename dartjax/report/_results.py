"""Write result files: check the record, replace non-finite numbers, check data set names."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DATASET_KINDS = ("synthetic", "real_ct_drr", "real_xray")

# The only phrase that may name the papers' data set in a file with other results.
REPORTED_BY_AUTHORS = "reported by the authors on VerSe-small, not comparable"

_VERSE_SMALL = re.compile(r"verse[\s_-]*small", re.IGNORECASE)
_RECORD_TYPES: dict[str, tuple[type, ...]] = {
    "dataset": (str,),
    "dataset_kind": (str,),
    "ids_hash": (str,),
    "n_subjects": (int,),
    "n_vertebrae": (int,),
    "ssm_excludes": (list,),
    "ssm_leak": (bool,),
    "seed": (int,),
    "commit": (str,),
    "preset": (str,),
    "nsd_tolerance_mm": (float, int, type(None)),  # None where no NSD is reported
}


def check_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a record has all fields with the right type and range, and return it.

    ValueError names the wrong field. Further fields are allowed.
    """
    for name, types in _RECORD_TYPES.items():
        if name not in record:
            raise ValueError(f"record lacks {name!r}: it needs {', '.join(_RECORD_TYPES)}")
        value = record[name]
        is_stray_bool = isinstance(value, bool) and bool not in types
        if is_stray_bool or not isinstance(value, types):
            wanted = " or ".join(t.__name__ for t in types)
            raise ValueError(f"record[{name!r}] is {value!r}, not a value of type {wanted}")
    kind, tolerance = record["dataset_kind"], record["nsd_tolerance_mm"]
    if kind not in DATASET_KINDS:
        raise ValueError(f"record['dataset_kind'] is {kind!r}: use one of {DATASET_KINDS}")
    if record["n_subjects"] < 0 or record["n_vertebrae"] < 0:
        raise ValueError("record: a count is negative")
    if tolerance is not None and not 0.0 < tolerance < math.inf:
        raise ValueError(f"record['nsd_tolerance_mm'] is {tolerance!r}: give a length above 0")
    return dict(record)


def metrics_text(
    record: Mapping[str, Any],
    summary: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    *,
    verse_small_ids_hash: str | None = None,
) -> str:
    """Encode record, summary and cases as the JSON text of metrics.json.

    A number that is not finite becomes null with a `<key>_reason` (the given one, if any).
    ValueError for an incomplete record, and for the name "VerSe-small" with other data.
    """
    content = {
        "record": check_record(record),
        "summary": with_reasons(summary),
        "cases": [with_reasons(case) for case in cases],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    check_dataset_name(text, record, verse_small_ids_hash)
    return text + "\n"


def markdown_table(
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    digits: int = 3,
    verse_small_ids_hash: str | None = None,
) -> str:
    """Make a Markdown table with the record below it; columns are the keys of the first row.

    ValueError for a record with `ssm_leak` (the shape model has seen a subject, so its results
    must not be reported), and for the name "VerSe-small" with other data.
    """
    check_record(record)
    if record["ssm_leak"]:
        raise ValueError(
            "no table is written: the shape model was built with a subject it is evaluated on; "
            "use shape models that exclude " + (", ".join(record["ssm_excludes"]) or "the subject")
        )
    if not rows:
        raise ValueError("no table is written: there are no rows")
    keys = list(rows[0])
    lines = [
        keys,
        ["---"] * len(keys),
        *([_cell(row.get(k), digits) for k in keys] for row in rows),
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    source = ", ".join(f"{key} {record[key]}" for key in _RECORD_TYPES)
    text = f"{table}\n\n{source}\n"
    check_dataset_name(text, record, verse_small_ids_hash)
    return text


def check_dataset_name(
    text: str, record: Mapping[str, Any], verse_small_ids_hash: str | None
) -> None:
    """Raise ValueError if `text` names VerSe-small but the data are not VerSe-small.

    The name is allowed if the kind is real_ct_drr and the record's id hash is the given hash of
    the VerSe-small id list. The phrase `REPORTED_BY_AUTHORS` is always allowed.
    """
    if not _VERSE_SMALL.search(text.replace(REPORTED_BY_AUTHORS, "")):
        return
    is_hash = verse_small_ids_hash is not None and record["ids_hash"] == verse_small_ids_hash
    if record["dataset_kind"] != "real_ct_drr" or not is_hash:
        raise ValueError(
            f"the name VerSe-small is not allowed: these data are {record['dataset_kind']} with "
            f"ids {record['ids_hash']}, not the VerSe-small list; give their true name"
        )


def with_reasons(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to plain JSON; a non-finite number becomes null with `<key>_reason`."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        plain[key], problem = _plain(value)
        if problem:
            plain[f"{key}_reason"] = values.get(f"{key}_reason") or problem
    return plain


def _plain(value: Any) -> tuple[Any, str]:
    """Return a value as plain JSON, and the problem with a number in it ("" if none)."""
    if isinstance(value, Mapping):
        return with_reasons(value), ""
    if hasattr(value, "tolist"):  # arrays and scalars of numpy and jax
        value = np.asarray(value).tolist()
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return [part for part, _ in parts], next((why for _, why in parts if why), "")
    if isinstance(value, float) and not math.isfinite(value):
        return None, "not a number" if math.isnan(value) else "infinite"
    return value, ""


def _cell(value: Any, digits: int) -> str:
    plain, _ = _plain(value)
    if plain is None:
        return "n/a"
    return f"{plain:.{digits}f}" if isinstance(plain, float) else str(plain)
