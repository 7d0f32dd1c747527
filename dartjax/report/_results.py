"""What a result file must say: the record, finite numbers with reasons, and honest names."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DATASET_KINDS = ("synthetic", "real_ct_drr", "real_xray")

# The one phrase that may name the papers' data set beside numbers of our own.
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
    """The record unchanged if every field is there with the right type and range.

    Raises ValueError that names the field. Fields beyond the required ones are allowed.
    """
    for name, types in _RECORD_TYPES.items():
        if name not in record:
            raise ValueError(f"record lacks {name!r}: it needs {', '.join(_RECORD_TYPES)}")
        value = record[name]
        is_stray_bool = isinstance(value, bool) and bool not in types
        if is_stray_bool or not isinstance(value, types):
            wanted = " or ".join(t.__name__ for t in types)
            raise ValueError(f"record[{name!r}] is {value!r}, which is no {wanted}")
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
    """JSON of {"record", "summary", "cases"}.

    A number that is not finite becomes null with `<key>_reason` beside it (yours if you give
    one). Raises ValueError for an incomplete record or an untrue "VerSe-small".
    """
    content = {
        "record": check_record(record),
        "summary": with_reasons(summary),
        "cases": [with_reasons(case) for case in cases],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    refuse_untrue_name(text, record, verse_small_ids_hash)
    return text + "\n"


def markdown_table(
    record: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    digits: int = 3,
    verse_small_ids_hash: str | None = None,
) -> str:
    """A Markdown table whose columns are the keys of the first row, with the record below it.

    Raises ValueError for a record with `ssm_leak` (the shape model has seen a subject, so the
    numbers may not be tabled) or an untrue "VerSe-small".
    """
    check_record(record)
    if record["ssm_leak"]:
        raise ValueError(
            "no table is written: the shape model was built with a subject it is measured on; "
            "choose models that exclude " + (", ".join(record["ssm_excludes"]) or "the subject")
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
    refuse_untrue_name(text, record, verse_small_ids_hash)
    return text


def refuse_untrue_name(
    text: str, record: Mapping[str, Any], verse_small_ids_hash: str | None
) -> None:
    """Raise ValueError if `text` says VerSe-small of data that are not it.

    They are when the kind is real_ct_drr and the record's id hash is the given hash of the
    VerSe-small id list. `REPORTED_BY_AUTHORS` is always allowed.
    """
    if not _VERSE_SMALL.search(text.replace(REPORTED_BY_AUTHORS, "")):
        return
    is_hash = verse_small_ids_hash is not None and record["ids_hash"] == verse_small_ids_hash
    if record["dataset_kind"] != "real_ct_drr" or not is_hash:
        raise ValueError(
            f"the name VerSe-small is refused: these data are {record['dataset_kind']} with ids "
            f"{record['ids_hash']}, not the VerSe-small list; name them as they are"
        )


def with_reasons(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values; where a number was not finite, null and `<key>_reason`."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        plain[key], problem = _plain(value)
        if problem:
            plain[f"{key}_reason"] = values.get(f"{key}_reason") or problem
    return plain


def _plain(value: Any) -> tuple[Any, str]:
    """The value as JSON knows it, and what was wrong with a number in it ("" if nothing)."""
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
