"""Read tables of annotated vertebra centres: one point per row.

Columns: scan_id, source_file, level, keypoint (body, left or right: the centres of the body and
of the pedicles), x_lps_mm, y_lps_mm, z_lps_mm. This is the table of the VID data set (Buergin,
Prevost, Stollenga, MICCAI 2023) with the pedicle points assigned to their vertebrae.
"""

import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import numpy as np

from dartjax._errors import DataError
from dartjax.data.formats import PathLike
from dartjax.ssm import KEYPOINTS
from dartjax.ssm.build import SpineScan

_COLUMNS = ("scan_id", "source_file", "level", "keypoint", "x_lps_mm", "y_lps_mm", "z_lps_mm")
_RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])
_PEOPLE = (r"COLO\d/([^/]+)/", r"sub-(verse\d+|gl\d+)", r"(PANCREAS_\d+)")


def load_spine_scans(path: PathLike) -> list[SpineScan]:
    """Read a table (CSV, also .gz) of body and pedicle centres; points become RAS mm.

    The person and whether it lay prone or supine follow from the name of the source file. DataError
    for a file that is not such a table, with its line.
    """
    scans: dict[str, SpineScan] = {}
    for number, row in enumerate(_rows_of(Path(path)), start=2):
        try:
            lps = np.array([float(row[f"{axis}_lps_mm"]) for axis in "xyz"])
        except (TypeError, ValueError):
            lps = np.full(3, np.nan)
        if row["keypoint"] not in KEYPOINTS or not np.isfinite(lps).all():
            raise DataError(
                f"{path}, line {number}: expected one of {', '.join(KEYPOINTS)} with three "
                "coordinates in mm"
            )
        source = row["source_file"]
        fresh = SpineScan(_person_of(source), _position_of(source), {})
        scan = scans.setdefault(row["scan_id"], fresh)
        points = scan.levels.setdefault(row["level"], {})  # pyright: ignore
        if row["keypoint"] in points:
            raise DataError(f"{path}, line {number}: a second {row['keypoint']} of {row['level']}")
        points[row["keypoint"]] = _RAS_FROM_LPS * lps
    if not scans:
        raise DataError(f"{path}: the table is empty")
    return list(scans.values())


def _rows_of(path: Path) -> list[dict[str, str]]:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
        rows, columns = list(table), table.fieldnames or ()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if missing := set(_COLUMNS) - set(columns):
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    return rows


def _person_of(source: str) -> str:
    found = (re.search(pattern, source) for pattern in _PEOPLE)
    return next((match[1] for match in found if match), source)


def _position_of(source: str) -> str:
    """Return prone or supine as the name of the series says; "" if it does not.

    Scans other than CT colonographies were taken supine."""
    if "COLONOG" not in source:
        return "supine"
    series = source.rsplit("/", 1)[-1].lower()
    return "prone" if "pron" in series else "supine" if "sup" in series else ""
