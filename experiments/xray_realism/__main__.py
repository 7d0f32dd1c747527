"""Does a simulated radiograph look and count like a real one? Pictures and numbers of one CT.

    python -m experiments.xray_realism --demo --out=FOLDER
        the example chest CT
    python -m experiments.xray_realism --cohort=FOLDER --subject=verse004 --out=OUT
        one CT of a cohort

Makes realism.png (AP and lateral: line integrals alone, physics without noise, standard dose,
low dose, collimated with tools), statistics.png (histograms and noise power spectra, beside the
noise that DeepDRR's defaults give), attenuation.md (water and bone against xraydb, when it is
installed, else against NIST's printed values) and metrics.json. Under two minutes on 2 cores.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import camera as cameras
from dartjax import cli, data, transforms
from dartjax._types import Image
from dartjax.camera import Camera
from dartjax.image import Volume
from dartjax.render import (
    Tool,
    XrayBody,
    XraySettings,
    cannula,
    drr,
    pedicle_screw,
    place_along,
    simulate_radiograph,
    xray_body,
    xray_settings,
)
from experiments.xray_realism import report as xray_realism_report
from experiments.xray_realism.report import Shot

_DEMO = flags.DEFINE_bool("demo", False, "Use the example chest CT.")
_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with vertebra masks.")
_SUBJECT = flags.DEFINE_string("subject", None, "Subject of the cohort. Default: the first.")
_SIZE = flags.DEFINE_integer("image_size", 512, "Pixels a side.", 64, 2048)
_WIDTH = flags.DEFINE_float("detector_mm", 400.0, "Side of the detector.", 50.0, 2000.0)
_KVP = flags.DEFINE_float("kvp", 80.0, "Tube voltage.", 60.0, 120.0)

SDD, SOURCE_TO_ISOCENTER = 1020.0, 650.0
NUM_SAMPLES = 500


def main(ctx: cli.RunContext) -> None:
    """Take the radiographs, measure, draw."""
    case = _case()
    kinds = techniques()
    shots = []
    with cli.progress("radiographs", 2 * len(kinds)) as step:
        for view in ("AP", "LAT_L"):
            camera = _camera(case.ct, view)
            for name, settings in kinds.items():
                shots.append(_take(case, camera, view, name, settings, ctx.seed))
                step(f"{view} {name}")
    xray_realism_report.draw_radiographs(ctx.out / "realism.png", shots, _watermark(case))
    curves = xray_realism_report.draw_statistics(
        ctx.out / "statistics.png", shots, _watermark(case)
    )
    table = xray_realism_report.attenuation_table()
    (ctx.out / "attenuation.md").write_text(xray_realism_report.table_text(table))
    record = ctx.record(
        dataset=case.dataset,
        dataset_kind=case.dataset_kind,
        subjects=[case.subject],
        n_vertebrae=len(case.levels),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    worst = max(abs(row["difference_percent"]) for row in table)
    ctx.save_metrics(
        record, {"attenuation_worst_percent": worst, **curves}, [*_cases(shots), *table]
    )


def techniques() -> dict[str, XraySettings | None]:
    """What is compared, by name; None is the plain DRR."""
    make = functools.partial(xray_settings, kvp=_KVP.value, num_samples=NUM_SAMPLES)
    return {
        "line integrals": None,
        "beam hardening": make("ideal", num_bins=3),
        "standard": make("standard"),
        "low dose": make("low_dose"),
        "collimated, tools": make("low_dose", shutters=(0.07, 0.13, 0.93, 0.87)),
        "as DeepDRR": deepdrr_like(),
    }


def deepdrr_like() -> XraySettings:
    """The published defaults of DeepDRR (arcadelab/deepdrr, projector.py) with its noise on:
    90 kV, 4 mm Al, 10,000 photons a pixel, white Poisson noise, no scatter, no blur."""
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


def _case() -> data.Case:
    if _DEMO.value == (_COHORT.value is not None):
        raise data.DataError("give exactly one of --demo and --cohort=FOLDER")
    if _DEMO.value:
        return data.example_case()
    subjects = data.find_subjects(str(_COHORT.value))
    wanted = [s for s in subjects if _SUBJECT.value in (None, s.id, f"sub-{s.id}")]
    if not wanted:
        known = ", ".join(s.id for s in subjects[:10])
        raise data.DataError(
            f"--subject={_SUBJECT.value} is not in {_COHORT.value}: it has {known}"
        )
    return data.load_case(wanted[0])


def _watermark(case: data.Case) -> str:
    synthetic = "SYNTHETIC ANATOMY - not VerSe, " if case.dataset_kind == "synthetic" else ""
    return f"{synthetic}{case.subject} ({case.dataset})"


def _camera(ct: Volume, view: transforms.ViewName) -> Camera:
    return cameras.from_carm(
        transforms.view_rotation(view),
        ct.center,
        sdd=SDD,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        pixel_spacing=_WIDTH.value / _SIZE.value,
        image_size=(_SIZE.value, _SIZE.value),
    )


def _take(
    case: data.Case,
    camera: Camera,
    view: str,
    name: str,
    settings: XraySettings | None,
    seed: int,
) -> Shot:
    """A radiograph and a second one that differs in its noise alone."""
    spacing = float(camera.pixel_spacing[0])
    if settings is None:
        image = np.asarray(_plain(case.ct, camera))
        return Shot(view, name, image, None, spacing)
    tools = _tools(case) if "tools" in name else ()
    keys = jax.random.split(jax.random.key(seed))
    body = xray_body(case.ct)
    first, second = (np.asarray(_simulate(body, camera, settings, tools, key)) for key in keys)
    return Shot(view, name, first, second if settings.noise else None, spacing)


@jax.jit
def _plain(ct: Volume, camera: Camera) -> Image:
    return drr(ct, camera, num_samples=NUM_SAMPLES)


@jax.jit
def _simulate(
    body: XrayBody, camera: Camera, settings: XraySettings, tools: Sequence[Tool], key: jax.Array
) -> Image:
    return simulate_radiograph(body, camera, settings, key=key, tools=tools).image


def _tools(case: data.Case) -> list[Tool]:
    """A cannula from the back at one vertebra and a screw in the next, by their centroids."""
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


def _cases(shots: list[Shot]) -> list[dict[str, Any]]:
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
    cli.run(main)
