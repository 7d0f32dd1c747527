"""How good a set of shape models is, measured on the surfaces it was built from: compactness,
generalisation with one subject left out, specificity, lengths against the published ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dartjax import cli, data, metrics, ssm, transforms
from dartjax.mesh import TriangleMesh
from dartjax.ssm import ShapeModel, build
from dartjax.ssm.build import Recipe, RegionModel, Template
from experiments.common import ssm_training
from experiments.common.ssm_training import Registered

MODE_COUNTS = (5, 15, 40)
BAND = 5  # modes whose coefficients are judged together
NUM_SAMPLES = 60
_NUM_POINTS = 3000


@dataclasses.dataclass(frozen=True)
class Quality:
    """Rows of the tables, and the numbers that go on the card."""

    regions: list[dict[str, Any]]  # compactness, generalisation, specificity by modes
    bands: list[dict[str, Any]]  # rms of the coefficients of subjects left out
    lengths: list[dict[str, Any]]  # of the means, by level
    spreads: list[dict[str, Any]]  # of random samples, by region
    summary: dict[str, float]


def measure_quality(
    registered: Sequence[Registered],
    regions: Mapping[str, RegionModel],
    models: Mapping[str, ShapeModel],
    template: Template,
    recipe: Recipe,
    *,
    leave_out: bool = True,
) -> Quality:
    """All tables of one set; without `leave_out` those that need no further models."""
    left_out = leave_one_subject_out(registered, template, recipe) if leave_out else []
    specificity = {name: _specificity(regions[name], registered) for name in regions}
    rows = []
    for name, region in regions.items():
        variance = np.cumsum(_variances(region.modes))
        for i, count in enumerate(MODE_COUNTS):
            own = [f for f in left_out if f["region"] == name and f["modes"] == count]
            kept = min(count, len(variance))
            rows.append(
                {
                    "region": name,
                    "modes": count,
                    "variance_share": float(variance[kept - 1] / variance[-1]),
                    "left_out_shapes": len(own),
                    "generalisation_mm": _mean([f["masd_mm"] for f in own]),
                    "generalisation_dice": _mean([f["dice"] for f in own]),
                    "specificity_mm": specificity[name][i],
                }
            )
    lengths = _length_rows(regions, template)
    spreads = _spread_rows(regions, template)
    bands = _band_rows(left_out)
    judged = [row["within_one_sd"] for row in lengths if row["within_one_sd"] is not None]
    ratios = [row["ratio"] for row in spreads]
    rms = [row["coefficient_rms"] for row in bands]
    summary = {
        "lengths_within_one_sd": float(np.mean(judged)) if judged else float("nan"),
        "spread_ratio_min": min(ratios),
        "spread_ratio_max": max(ratios),
        "coefficient_rms_min": min(rms, default=float("nan")),
        "coefficient_rms_max": max(rms, default=float("nan")),
        "generalisation_15_mm": _mean([f["masd_mm"] for f in left_out if f["modes"] == 15]),
        "folded_pairs": sum(
            build.triangle_quality(np.asarray(m.mean_shape, float), template.topology.faces)[
                "folded_pairs"
            ]
            for m in models.values()
        ),
    }
    measured = {name: value for name, value in summary.items() if np.isfinite(value)}
    return Quality(rows, bands, lengths, spreads, measured)


def leave_one_subject_out(
    registered: Sequence[Registered], template: Template, recipe: Recipe
) -> list[dict[str, Any]]:
    """Every surface fitted by a model built without its subject. A region that no other subject
    has shapes of is left out."""
    fits = []
    pairs = sorted({(r.surface.subject, data.region_of(r.surface.level)) for r in registered})
    with cli.progress("leave one subject out", len(pairs)) as step:
        for subject, region in pairs:
            others = [r.shape for r in registered if r.surface.subject != subject]
            try:
                built = ssm_training.build_regions(
                    others,
                    template.topology,
                    num_modes=max(MODE_COUNTS),
                    recipe=recipe,
                    regions=[region],
                )[region]
            except ValueError as error:
                step(f"{subject} {region}: skipped, {error}")
                continue
            own = [r for r in registered if r.surface.subject == subject]
            for each in own:
                if each.surface.level in built.level_shapes:
                    fits += _fits(each, built, template, region)
            step(f"{subject} {region}")
    return fits


def cases_of(registered: Sequence[Registered]) -> list[dict[str, Any]]:
    """One case per training shape: how well the template lies on it."""
    return [
        {
            "subject": r.surface.subject,
            "level": r.surface.level,
            "registration_residual_mm": r.residual_mm,
        }
        for r in registered
    ]


def _fits(
    each: Registered, region: RegionModel, template: Template, name: str
) -> list[dict[str, Any]]:
    surface, faces = each.surface, jnp.asarray(template.topology.faces, jnp.int32)
    points, normals = ssm.surface_samples(surface.vertices, surface.faces, _NUM_POINTS)
    truth = TriangleMesh(
        jnp.asarray(surface.vertices, jnp.float32), jnp.asarray(surface.faces, jnp.int32)
    )
    mean = jnp.asarray(region.level_shapes[surface.level], jnp.float32)
    fits = []
    for count in MODE_COUNTS:
        # Modes beyond the count are zero, so that one compiled program serves all.
        modes = np.where(np.arange(len(region.modes))[:, None, None] < count, region.modes, 0.0)
        modes = jnp.asarray(modes, jnp.float32)
        pose, coefficients, _ = ssm.fit_modes(
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
        grades = metrics.reconstruction_metrics(TriangleMesh(shape, faces), truth)
        case = {"subject": surface.subject, "level": surface.level, "region": name}
        fits.append(case | {"modes": count, "coefficients": np.asarray(coefficients)} | grades)
    return fits


def _band_rows(fits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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


def _variances(modes: np.ndarray) -> np.ndarray:
    return np.square(modes).sum((1, 2))


def _specificity(region: RegionModel, registered: Sequence[Registered]) -> list[float]:
    """Mean distance of random shapes to the nearest training shape of the region, vertex to
    vertex after rigid alignment, mm, by number of modes."""
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
            aligned = [build.rigidly_onto(shape, drawn) for shape in shapes]
            distances.append(min(np.linalg.norm(a - drawn, axis=1).mean() for a in aligned))
        result.append(float(np.mean(distances)))
    return result


def _length_rows(regions: Mapping[str, RegionModel], template: Template) -> list[dict[str, Any]]:
    """Lengths of the mean of every level beside the published ones."""
    rows = []
    for region in regions.values():
        for level, mean in region.level_shapes.items():
            calipers = build.measure(mean, template.topology.faces)
            for name, entry in data.published(level).items():
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


def _spread_rows(regions: Mapping[str, RegionModel], template: Template) -> list[dict[str, Any]]:
    """Standard deviation of the lengths of random shapes beside the published one, mean over
    the levels that have one."""
    rng = np.random.default_rng(1)
    rows = []
    for name, region in regions.items():
        published = [data.published(level) for level in region.level_shapes]
        level, mean = list(region.level_shapes.items())[len(region.level_shapes) // 2]
        coefficients = _matched_normals(rng, NUM_SAMPLES, 15)
        drawn = mean + np.tensordot(coefficients, region.modes[:15], axes=1)
        measured = [build.measure(shape, template.topology.faces) for shape in drawn]
        for length in build.LENGTHS:
            found = [p[length].sd for p in published if length in p]
            spreads = [sd for sd in found if sd is not None]
            if not spreads:
                continue
            values = np.array([m[length].value for m in measured])
            deviation = float(np.std(values, ddof=1))
            wanted = float(np.mean(spreads))
            row = {"region": name, "level": level, "length": length, "model_sd_mm": deviation}
            rows.append(row | {"published_sd_mm": wanted, "ratio": deviation / wanted})
    return rows


def _matched_normals(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Normal draws with mean exactly 0 and covariance exactly I: a spread measured on them has
    no sampling error to first order. With independent draws it has 15 % at 30 shapes."""
    drawn = rng.normal(size=(count, size))
    drawn -= drawn.mean(0)
    factor = np.linalg.cholesky(np.cov(drawn, rowvar=False))
    return np.linalg.solve(factor, drawn.T).T


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
