"""Quality measures of a set of shape models on its training surfaces, on the host.

Compactness, leave-one-subject-out generalisation, specificity, and lengths compared with
published ones.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import metrics, transforms
from dartjax._progress import Progress, no_progress
from dartjax.anatomy import region_of
from dartjax.mesh import TriangleMesh
from dartjax.ssm._model import ShapeModel
from dartjax.ssm._surface_fit import fit_modes, surface_samples
from dartjax.ssm.build._build import LENGTHS, Recipe, RegionModel, Shape, Target, rigidly_onto
from dartjax.ssm.build._morphometry import measure
from dartjax.ssm.build._regions import Mapped, Remember, build_regions
from dartjax.ssm.build._registration import RegisteredSurface
from dartjax.ssm.build._remesh import triangle_quality
from dartjax.ssm.build._template import Template

MODE_COUNTS = (5, 15, 40)
BAND = 5  # number of consecutive modes whose coefficients are pooled
NUM_SAMPLES = 60
_NUM_POINTS = 3000

Row = dict[str, Any]
Targets = Mapping[str, Mapping[str, Target]]


@dataclasses.dataclass(frozen=True)
class Quality:
    """Rows of the tables, and the summary for the model card."""

    regions: list[Row]  # compactness, generalisation, specificity by modes
    bands: list[Row]  # rms of the coefficients of held-out subjects
    lengths: list[Row]  # of the means, by level
    spreads: list[Row]  # of random samples, by region
    subjects: list[Row]  # leave-one-out fits by number of subjects behind the models
    summary: dict[str, float]


def measure_quality(
    registered: Sequence[RegisteredSurface],
    regions: Mapping[str, RegionModel],
    models: Mapping[str, ShapeModel],
    template: Template,
    targets: Targets,
    *,
    recipe: Recipe = Recipe(),
    leave_out: bool = True,
    subject_counts: Sequence[int] = (),
    remember: Remember | None = None,
    mapped: Mapped = map,
    progress: Progress = no_progress,
) -> Quality:
    """Measure the quality of one set of models.

    Without `leave_out` the tables that need leave-one-subject-out models stay empty. `targets` are
    the published lengths by level and name, `recipe` is that of the set; `remember` and
    `mapped` as in `build_regions`. `subject_counts` also measures models of so many subjects each.
    """
    left_out, subjects = [], []
    if leave_out:
        for count in [*subject_counts, None]:
            left_out = leave_one_subject_out(
                registered,
                template,
                targets,
                num_subjects=count,
                recipe=recipe,
                remember=remember,
                mapped=mapped,
                progress=progress,
            )
            subjects += _subject_rows(left_out, count)
    rows = _region_rows(regions, registered, left_out)
    lengths = _length_rows(regions, template, targets)
    spreads = _spread_rows(regions, template, targets)
    bands = _band_rows(left_out)
    summary = _summary(lengths, spreads, bands, left_out) | {
        "folded_pairs": sum(_folded_pairs(model, template) for model in models.values())
    }
    measured = {name: value for name, value in summary.items() if np.isfinite(value)}
    return Quality(rows, bands, lengths, spreads, subjects, measured)


def leave_one_subject_out(
    registered: Sequence[RegisteredSurface],
    template: Template,
    targets: Targets,
    *,
    num_subjects: int | None = None,
    recipe: Recipe = Recipe(),
    remember: Remember | None = None,
    mapped: Mapped = map,
    progress: Progress = no_progress,
) -> list[Row]:
    """Fit every surface by a model built without its subject: metrics and coefficients by number
    of modes. A region without shapes of another subject is skipped.

    With `num_subjects`, only so many other subjects are used: those with the most vertebrae of the
    region, the first by name among equals.
    """
    pairs = sorted({(r.surface.subject, region_of(r.surface.level)) for r in registered})
    left_out = functools.partial(
        _left_out, template=template, targets=targets, recipe=recipe, remember=remember
    )
    own, others = [], []
    for subject, region in pairs:
        of_subject = [r for r in registered if r.surface.subject == subject]
        own.append([r for r in of_subject if region_of(r.surface.level) == region])
        shapes = [r.shape for r in registered if r.surface.subject != subject]
        others.append(shapes if num_subjects is None else _of_most(shapes, region, num_subjects))
    fits: list[Row] = []
    with progress("leave one subject out", len(pairs)) as step:
        found = mapped(left_out, [region for _, region in pairs], own, others)
        for (subject, region), (rows, note) in zip(pairs, found, strict=True):
            fits += rows
            step(f"{subject} {region}{note}")
    return fits


def _left_out(
    region: str,
    held_out: Sequence[RegisteredSurface],
    others: Sequence[Shape],
    template: Template,
    targets: Targets,
    recipe: Recipe,
    remember: Remember | None,
) -> tuple[list[Row], str]:
    """Fit the surfaces of one subject by a model of the others; the note says why it is skipped."""
    try:
        built = build_regions(
            others,
            template.topology,
            targets,
            num_modes=max(MODE_COUNTS),
            recipe=recipe,
            regions=[region],
            remember=remember,
        )[region]
    except ValueError as error:
        return [], f": skipped, {error}"
    return [row for each in held_out for row in _fits(each, built, template, region)], ""


def _of_most(shapes: Sequence[Shape], region: str, num_subjects: int) -> list[Shape]:
    """Return the shapes of the subjects with the most vertebrae of a region."""
    own = collections.Counter(s.subject for s in shapes if region_of(s.level) == region)
    chosen = sorted(own, key=lambda subject: (-own[subject], subject))[:num_subjects]
    return [shape for shape in shapes if shape.subject in chosen]


def _fits(
    held_out: RegisteredSurface, region: RegionModel, template: Template, name: str
) -> list[Row]:
    """Fit the model of a region to one held-out surface, by number of modes."""
    surface, faces = held_out.surface, jnp.asarray(template.topology.faces, jnp.int32)
    points, normals = surface_samples(surface.vertices, surface.faces, _NUM_POINTS)
    truth = TriangleMesh(
        jnp.asarray(surface.vertices, jnp.float32), jnp.asarray(surface.faces, jnp.int32)
    )
    mean = jnp.asarray(region.level_shapes[surface.level], jnp.float32)
    fits = []
    for count in MODE_COUNTS:
        # Modes beyond the count are zero, so that one compiled program serves all counts.
        modes = np.where(np.arange(len(region.modes))[:, None, None] < count, region.modes, 0.0)
        modes = jnp.asarray(modes, jnp.float32)
        pose, coefficients, _ = fit_modes(
            mean,
            modes,
            faces,
            points,
            normals,
            transforms.SE3.identity(),
            num_iterations=40,
            noise=(6.0, 0.5),
        )
        shape = transforms.apply(pose, mean + jnp.tensordot(coefficients, modes, axes=1))
        errors = metrics.reconstruction_metrics(TriangleMesh(shape, faces), truth)
        case = {"subject": surface.subject, "level": surface.level, "region": name}
        fits.append(case | {"modes": count, "coefficients": np.asarray(coefficients)} | errors)
    return fits


def _subject_rows(left_out: Sequence[Row], num_subjects: int | None) -> list[Row]:
    """Tabulate the fits of models of a number of subjects, None for all, by number of modes."""
    rows = []
    for count in MODE_COUNTS:
        fits = [fit for fit in left_out if fit["modes"] == count]
        dice, masd = ([fit[name] for fit in fits] for name in ("dice", "masd_mm"))
        if fits:
            rows.append(
                {
                    "subjects": "all" if num_subjects is None else num_subjects,
                    "modes": count,
                    "left_out_shapes": len(fits),
                    "median_dice": float(np.median(dice)),
                    "lowest_dice": float(np.min(dice)),
                    "median_masd_mm": float(np.median(masd)),
                    "mean_masd_mm": _mean(masd),
                }
            )
    return rows


def _region_rows(
    regions: Mapping[str, RegionModel],
    registered: Sequence[RegisteredSurface],
    left_out: Sequence[Row],
) -> list[Row]:
    """Tabulate compactness, generalisation and specificity by region and number of modes."""
    rows = []
    for name, region in regions.items():
        variance = np.cumsum(np.square(region.modes).sum((1, 2)))
        specificity = _specificity(region, registered)
        for count, distance in zip(MODE_COUNTS, specificity, strict=True):
            fits = [f for f in left_out if f["region"] == name and f["modes"] == count]
            kept = min(count, len(variance))
            rows.append(
                {
                    "region": name,
                    "modes": count,
                    "variance_share": float(variance[kept - 1] / variance[-1]),
                    "left_out_shapes": len(fits),
                    "generalisation_mm": _mean([f["masd_mm"] for f in fits]),
                    "generalisation_dice": _mean([f["dice"] for f in fits]),
                    "specificity_mm": distance,
                }
            )
    return rows


def _specificity(region: RegionModel, registered: Sequence[RegisteredSurface]) -> list[float]:
    """Compute the mean distance of random shapes to the nearest training shape of the region,
    vertex to vertex after rigid alignment, mm, by number of modes."""
    rng = np.random.default_rng(0)
    shapes = [r.vertices for r in registered if r.surface.level in region.level_shapes]
    levels = list(region.level_shapes.values())
    result = []
    for count in MODE_COUNTS:
        distances = []
        for i in range(NUM_SAMPLES):
            modes = region.modes[:count]
            drawn = np.tensordot(rng.normal(size=len(modes)), modes, axes=1)
            drawn = drawn + levels[i % len(levels)]
            aligned = [rigidly_onto(shape, drawn) for shape in shapes]
            distances.append(min(np.linalg.norm(a - drawn, axis=1).mean() for a in aligned))
        result.append(float(np.mean(distances)))
    return result


def _band_rows(fits: Sequence[Row]) -> list[Row]:
    full = [f["coefficients"] for f in fits if f["modes"] == max(MODE_COUNTS)]
    if not full:
        return []
    squares = np.mean(np.square(full), axis=0)
    return [
        {
            "modes": f"{start + 1}-{start + BAND}",
            "coefficient_rms": float(np.sqrt(squares[start : start + BAND].mean())),
        }
        for start in range(0, len(squares), BAND)
    ]


def _length_rows(
    regions: Mapping[str, RegionModel], template: Template, targets: Targets
) -> list[Row]:
    """Tabulate the lengths of the mean of every level and the published lengths."""
    rows = []
    for region in regions.values():
        for level, mean in region.level_shapes.items():
            calipers = measure(mean, template.topology.faces)
            for name, entry in targets.get(level, {}).items():
                if name not in calipers:
                    continue
                value, within = calipers[name].value, None
                if entry.sd is not None:
                    within = bool(abs(value - entry.mean) <= entry.sd)
                rows.append(
                    {
                        "level": level,
                        "length": name,
                        "model_mm": float(value),
                        "published_mm": entry.mean,
                        "published_sd_mm": entry.sd,
                        "within_one_sd": within,
                    }
                )
    return rows


def _spread_rows(
    regions: Mapping[str, RegionModel], template: Template, targets: Targets
) -> list[Row]:
    """Tabulate the standard deviation of the lengths of random shapes and the published standard
    deviation, averaged over the levels that have one."""
    rng = np.random.default_rng(1)
    rows = []
    for name, region in regions.items():
        published = [targets.get(level, {}) for level in region.level_shapes]
        level, mean = list(region.level_shapes.items())[len(region.level_shapes) // 2]
        coefficients = _matched_normals(rng, NUM_SAMPLES, 15)
        drawn = mean + np.tensordot(coefficients, region.modes[:15], axes=1)
        measured = [measure(shape, template.topology.faces) for shape in drawn]
        for length in LENGTHS:
            found = [p[length].sd for p in published if length in p]
            spreads = [sd for sd in found if sd is not None]
            if not spreads:
                continue
            values = np.array([m[length].value for m in measured])
            deviation = float(np.std(values, ddof=1))
            published_sd = float(np.mean(spreads))
            row = {"region": name, "level": level, "length": length, "model_sd_mm": deviation}
            rows.append(row | {"published_sd_mm": published_sd, "ratio": deviation / published_sd})
    return rows


def _matched_normals(
    rng: np.random.Generator, count: int, size: int
) -> Float[np.ndarray, "{count} {size}"]:
    """Draw normal samples with mean exactly 0 and covariance exactly I.

    A spread measured on them has no sampling error to first order; with independent samples it
    has 15 % at 30 shapes."""
    drawn = rng.normal(size=(count, size))
    drawn -= drawn.mean(0)
    factor = np.linalg.cholesky(np.cov(drawn, rowvar=False))
    return np.linalg.solve(factor, drawn.T).T


def _summary(
    lengths: Sequence[Row], spreads: Sequence[Row], bands: Sequence[Row], left_out: Sequence[Row]
) -> dict[str, float]:
    compared = [row["within_one_sd"] for row in lengths if row["within_one_sd"] is not None]
    ratios = [row["ratio"] for row in spreads]
    rms = [row["coefficient_rms"] for row in bands]
    return {
        "lengths_within_one_sd": float(np.mean(compared)) if compared else float("nan"),
        "spread_ratio_min": min(ratios),
        "spread_ratio_max": max(ratios),
        "coefficient_rms_min": min(rms, default=float("nan")),
        "coefficient_rms_max": max(rms, default=float("nan")),
        "generalisation_15_mm": _mean([f["masd_mm"] for f in left_out if f["modes"] == 15]),
    }


def _folded_pairs(model: ShapeModel, template: Template) -> float:
    mean = np.asarray(model.mean_shape, float)
    return triangle_quality(mean, template.topology.faces)["folded_pairs"]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
