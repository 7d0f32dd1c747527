"""Write tables and figures of shape models."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from dartjax import planning, ssm, transforms
from dartjax.observations import SIDES
from dartjax.report import Tile, contact_sheet
from dartjax.ssm import ShapeModel
from dartjax.ssm.build import LEVELS_OF_REGION, Quality, Template

# One colour per part, in the order of ssm.PART_NAMES.
_PART_COLOURS = np.array(
    [
        [0.90, 0.87, 0.78],
        [0.98, 0.55, 0.24],
        [0.49, 0.78, 0.55],
        [0.38, 0.60, 0.98],
        [0.76, 0.45, 0.83],
        [0.98, 0.82, 0.30],
        [0.93, 0.36, 0.36],
    ]
)
_ON_IT = np.array([0.90, 0.89, 0.86])
_FAR_OUT, _FAR_IN = np.array([0.86, 0.15, 0.13]), np.array([0.13, 0.32, 0.86])
_FULL_COLOUR_MM = 2.0
_MAX_COLUMNS = 14
_DEVIATIONS = (-3.0, -2.0, 0.0, 2.0, 3.0)
_MODES_DRAWN = 5


def write_oracle(
    out: pathlib.Path, cases: Sequence[Mapping[str, Any]], modes: Sequence[int]
) -> None:
    """Write oracle.md: grades by level and number of modes, with median and mean."""
    header = ["subject", "level"]
    header += [f"{name} ({m} modes)" for m in modes for name in ("Dice", "MASD mm", "HD95 mm")]
    rows: dict[tuple[str, str], list[Any]] = {}
    for case in cases:
        row = rows.setdefault((case["subject"], case["level"]), [])
        row += [case["dice"], case["masd_mm"], case["hd95_mm"]]
    lines = [[*key, *(_number(v) for v in row)] for key, row in rows.items()]
    columns = np.array(list(rows.values()), float)
    lines.append(["all", "median", *(_number(v) for v in np.median(columns, axis=0))])
    lines.append(["all", "mean", *(_number(v) for v in columns.mean(0))])
    (out / "oracle.md").write_text(
        _markdown(header, lines) + "\n" + _path_table(cases, modes[0]), encoding="utf-8"
    )


def _path_table(cases: Sequence[Mapping[str, Any]], num_modes: int) -> str:
    """Make the table of the shares of paths, carried and best, that stay in the bone, by level."""
    own = [case for case in cases if case["modes"] == num_modes]
    names = [key for key in own[0] if "clearance" in key]
    kinds = list(dict.fromkeys(name.replace("_left", "").replace("_right", "") for name in names))
    rows = []
    for level in [*dict.fromkeys(case["level"] for case in own), "all"]:
        chosen = [case for case in own if level in (case["level"], "all")]
        shares = []
        for kind in kinds:
            start, _, end = kind.rpartition("clearance")
            pair = [f"{start}clearance_{side}{end}" for side in SIDES]
            shares.append(float(np.mean([case[name] >= 0.0 for case in chosen for name in pair])))
        rows.append([level, str(2 * len(chosen)), *(_number(share) for share in shares)])
    titles = [kind.replace("_", " ").replace("best clearance", "feasible") for kind in kinds]
    titles = [title.replace("clearance", "carried") for title in titles]
    return _markdown(["level", "paths", *titles], rows)


def error_tile(
    case: Mapping[str, Any],
    fit: ssm.Registration,
    faces: Int[np.ndarray, "face 3"],
    truth: planning.DistanceField,
) -> Tile:
    """Make a tile of a fit, coloured by its signed distance to the true surface.

    Red is outside the true bone, blue inside, with full colour at `_FULL_COLOUR_MM`.
    """
    distance = np.asarray(planning.signed_distance(truth, fit.vertices))[faces].mean(1)
    strength = np.clip(distance / _FULL_COLOUR_MM, -1.0, 1.0)[:, None]
    colours = np.where(strength > 0.0, _FAR_OUT, _FAR_IN) * np.abs(strength)
    colours += _ON_IT * (1.0 - np.abs(strength))
    local = transforms.apply(fit.pose.inverse(), fit.vertices)
    title = f"{case['level']}, {case['modes']} modes: {case['dice']:.3f}"
    paths = transforms.apply(fit.pose.inverse(), fit.paths.reshape(-1, 3)).reshape(2, 2, 3)
    return Tile(
        title, np.asarray(local, float), faces, paths=np.asarray(paths, float), colours=colours
    )


def write_errors(out: pathlib.Path, tiles: Sequence[Tile], num_rows: int) -> None:
    """Write oracle.png: fits coloured by their distance to the true surface.

    There is a row per number of modes, with at most `_MAX_COLUMNS` vertebrae.
    """
    rows = [tiles[row::num_rows][:_MAX_COLUMNS] for row in range(num_rows)]
    title = f"Best fits: red outside the true bone, blue inside, full colour {_FULL_COLOUR_MM} mm"
    (out / "oracle.png").write_bytes(contact_sheet(rows, title))


def write_tables(out: pathlib.Path, quality: Quality) -> None:
    """Write tables.md: all quality measures of a build."""
    parts = []
    titles = {
        "regions": "Compactness, generalisation (leave-one-out) and specificity",
        "bands": "Coefficients of held-out subjects, by band of modes",
        "lengths": "Lengths of the mean of each level",
        "spreads": "Spread of lengths over random shapes (15 modes)",
        "subjects": "Leave-one-out fits by number of subjects behind the models",
    }
    for name, title in titles.items():
        rows = getattr(quality, name)
        if rows:
            lines = [[_number(value) for value in row.values()] for row in rows]
            header = [column.replace("_", " ") for column in rows[0]]
            parts.append(f"### {title}\n\n{_markdown(header, lines)}")
    (out / "tables.md").write_text("\n".join(parts), encoding="utf-8")


def write_pictures(out: pathlib.Path, models: Mapping[str, ShapeModel], template: Template) -> None:
    """Draw the mean of every level with parts, landmarks and paths, and the first modes."""
    faces = template.topology.faces
    colours = _PART_COLOURS[template.topology.parts[faces[:, 0]]]
    for region, levels in LEVELS_OF_REGION.items():
        tiles = [_tile(models[level], level, 0, 0.0, colours) for level in levels]
        title = f"{region}: means, parts, landmarks and paths"
        (out / f"levels_{region}.png").write_bytes(contact_sheet([tiles], title))
        middle_level = levels[len(levels) // 2]
        middle = models[middle_level]
        rows = [
            [_tile(middle, f"mode {mode + 1}, {d:+.0f} SD", mode, d) for d in _DEVIATIONS]
            for mode in range(min(_MODES_DRAWN, middle.num_modes))
        ]
        title = f"{region}: first modes about {middle_level}"
        (out / f"modes_{region}.png").write_bytes(contact_sheet(rows, title))


def _tile(
    model: ShapeModel,
    title: str,
    mode: int,
    deviation: float,
    colours: np.ndarray | None = None,
) -> Tile:
    vertices = model.mean_shape + deviation * model.modes[mode]
    return Tile(
        title,
        np.asarray(vertices, float),
        np.asarray(model.faces),
        np.asarray(ssm.landmarks(model, vertices), float),
        np.asarray(ssm.paths(model, vertices), float),
        colours,
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
