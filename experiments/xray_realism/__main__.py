"""Evaluate the realism of simulated radiographs of one CT: images, noise and attenuation.

    python -m experiments.xray_realism --demo --out=FOLDER
        uses the example chest CT
    python -m experiments.xray_realism --cohort=FOLDER --subject=verse004 --out=OUT
        uses one CT of a cohort

Writes realism.png (AP and lateral: line integrals, physics without noise, standard dose, low dose,
collimated with tools), statistics.png (histograms and noise power spectra, compared with the
default noise of DeepDRR), attenuation.md (water and bone compared with xraydb if it is installed,
else with the values printed by NIST) and metrics.json. Takes under two minutes on 2 cores.
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax import camera as cameras
from dartjax import data, transforms
from dartjax.camera import Camera
from dartjax.cli import launch
from dartjax.image import Volume
from dartjax.render import (
    Tool,
    XrayBody,
    XraySettings,
    cannula,
    compare_attenuation,
    drr,
    pedicle_screw,
    place_along,
    simulate_radiograph,
    xray_body,
    xray_settings,
)
from experiments.xray_realism import report
from experiments.xray_realism.settings import Settings

SDD, SOURCE_TO_ISOCENTER = 1020.0, 650.0
NUM_SAMPLES = 500


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Simulate the radiographs, measure their statistics, and draw them."""
    case = _case(settings)
    kinds = techniques(settings.kvp)
    shots = []
    with launch.progress("radiographs", 2 * len(kinds)) as step:
        for view in ("AP", "LAT_L"):
            camera = _camera(case.ct, view, settings.detector_mm, settings.image_size)
            for name, technique in kinds.items():
                shots.append(_take(case, camera, view, name, technique, ctx.seed))
                step(f"{view} {name}")
    report.draw_radiographs(ctx.out / "realism.png", shots, _watermark(case))
    first = [shot for shot in shots if shot.view == shots[0].view and "tools" not in shot.name]
    report.draw_statistics(ctx.out / "statistics.png", first, _watermark(case))
    table = compare_attenuation()
    (ctx.out / "attenuation.md").write_text(report.table_text(table), encoding="utf-8")
    record = ctx.record(
        dataset=case.dataset,
        dataset_kind=case.dataset_kind,
        subjects=[case.subject],
        n_vertebrae=len(case.levels),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    worst = max(abs(row["difference_percent"]) for row in table)
    summary = {"attenuation_worst_percent": worst, **report.noise_summary(first)}
    ctx.save_metrics(record, summary, [*_cases(shots), *table])


def techniques(kvp: float) -> dict[str, XraySettings | None]:
    """Return the compared imaging settings by name; None is the plain DRR."""
    make = functools.partial(xray_settings, kvp=kvp, num_samples=NUM_SAMPLES)
    return {
        "line integrals": None,
        "beam hardening": make("ideal", num_bins=3),
        "standard": make("standard"),
        "low dose": make("low_dose"),
        "collimated, tools": make("low_dose", shutters=(0.07, 0.13, 0.93, 0.87)),
        "as DeepDRR": _as_deepdrr(),
    }


def _as_deepdrr() -> XraySettings:
    """Return the published defaults of DeepDRR (arcadelab/deepdrr, projector.py), with noise.

    These are 90 kV, 4 mm Al, 10,000 photons per pixel, white Poisson noise, no scatter, no blur.
    """
    return xray_settings(
        "standard",
        kvp=90.0,
        filtration_mm_al=4.0,
        filtration_mm_cu=0.0,
        photons_per_pixel=1e4,
        scatter_to_primary=0.0,
        blur_mm=0.0,
        electronic_noise=0.0,
        num_samples=NUM_SAMPLES,
    )


def _case(settings: Settings) -> data.Case:
    cohort, subject = settings.cohort, settings.subject
    if settings.demo == (cohort is not None):
        raise data.DataError("give exactly one of --demo and --cohort=FOLDER")
    if cohort is None:
        return data.example_case()
    subjects = data.find_subjects(cohort, labels=cast(data.Numbering, settings.labels))
    wanted = [s for s in subjects if subject in (None, s.id, f"sub-{s.id}")]
    if not wanted:
        known = ", ".join(s.id for s in subjects[:10])
        raise data.DataError(f"--subject={subject} is not in {cohort}: it has {known}")
    return data.load_case(wanted[0])


def _watermark(case: data.Case) -> str:
    synthetic = "SYNTHETIC ANATOMY - not VerSe, " if case.dataset_kind == "synthetic" else ""
    return f"{synthetic}{case.subject} ({case.dataset})"


def _camera(ct: Volume, view: transforms.ViewName, detector_mm: float, image_size: int) -> Camera:
    return cameras.from_carm(
        transforms.view_rotation(view),
        ct.center,
        sdd=SDD,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        pixel_spacing=detector_mm / image_size,
        image_size=(image_size, image_size),
    )


def _take(
    case: data.Case,
    camera: Camera,
    view: str,
    name: str,
    technique: XraySettings | None,
    seed: int,
) -> report.Shot:
    """Simulate a radiograph, and a second one that differs only in its noise."""
    spacing = float(camera.pixel_spacing[0])
    if technique is None:
        image = np.asarray(_plain(case.ct, camera))
        return report.Shot(view, name, image, None, spacing)
    tools = _tools(case) if "tools" in name else ()
    keys = jax.random.split(jax.random.key(seed))
    body = xray_body(case.ct)
    first, second = (np.asarray(_simulate(body, camera, technique, tools, key)) for key in keys)
    return report.Shot(view, name, first, second if technique.noise else None, spacing)


@jax.jit
def _plain(ct: Volume, camera: Camera) -> Float[Array, "h w"]:
    return drr(ct, camera, num_samples=NUM_SAMPLES)


@jax.jit
def _simulate(
    body: XrayBody, camera: Camera, technique: XraySettings, tools: Sequence[Tool], key: Array
) -> Float[Array, "h w"]:
    return simulate_radiograph(body, camera, technique, key=key, tools=tools).image


def _tools(case: data.Case) -> list[Tool]:
    """Place a posterior cannula at one vertebra and a screw in the next, by their centroids."""
    affine = np.asarray(case.ct.world_from_voxel)
    middle = len(case.levels) // 2
    tools = []
    for level, mesh, material in zip(
        case.levels[middle : middle + 2],
        (cannula(), pedicle_screw()),
        ("steel", "titanium"),
        strict=False,
    ):
        voxel = np.argwhere(case.labels == case.label_of(level)).mean(0)
        tip = jnp.asarray(affine[:3, :3] @ voxel + affine[:3, 3] + [12.0, 12.0, 0.0], jnp.float32)
        tools.append(Tool(mesh, place_along(tip, jnp.array([-0.25, 1.0, 0.05])), material))
    return tools


def _cases(shots: list[report.Shot]) -> list[dict[str, Any]]:
    return [
        {
            "view": shot.view,
            "technique": shot.name,
            "line_integral_p01": float(np.percentile(shot.image, 1)),
            "line_integral_median": float(np.median(shot.image)),
            "line_integral_p99": float(np.percentile(shot.image, 99)),
            "noise_std": None if shot.other is None else shot.noise_std,
            "noise_std_reason": "no noise" if shot.other is None else None,
        }
        for shot in shots
    ]


if __name__ == "__main__":
    launch.run(main, Settings)
