"""Define the commands of `dartjax`: help, settings and main function of each.

This module does not import JAX: the main of a command is imported when it runs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dartjax.cli._settings import setting

_LEVELS = "Only these levels, such as L1-L3 or T12,L1."


@dataclasses.dataclass(frozen=True)
class Reconstruct:
    """Settings of `dartjax reconstruct`."""

    images: tuple[str, ...] = setting(
        (),
        "Your X-rays, one file per view: PNG (8 or 16 bit), TIFF or .npy. Two views are best.",
        positional=True,
    )
    cameras: str | None = setting(
        None, "JSON file with one camera per X-ray, in the order of the X-rays. Required."
    )
    init: str | None = setting(
        None,
        "JSON file with the initial estimate of each vertebra's position: one object with its "
        "level, or a list of them. Default: the vertebrae are found in the X-rays.",
    )
    levels: str | None = setting(
        None, "Only these levels of the --init file, or that may be in view, such as L1-L3."
    )
    pixels: str = setting(
        "line_integral",
        "Meaning of the pixel values: line integrals (bone is bright) or raw intensity (air is "
        "bright).",
        choices=("line_integral", "intensity"),
    )
    recipe: str = setting(
        "classical",
        "How the vertebrae are fitted. classical: all vertebrae together; alone: each vertebra "
        "separately; faithful: with the learned similarity only; ours: classical, plus the learned "
        "similarity.",
        choices=("classical", "alone", "faithful", "ours"),
    )
    similarity: str | None = setting(
        None, "Folder with weights of the learned similarity. Default: the packaged weights."
    )
    restarts: int = setting(
        1, "Starts per vertebra that is fitted separately; the best is kept.", lower_bound=1
    )
    ssm: str | None = setting(None, "Folder with shape models. Default: the packaged shape models.")
    needle_radius_mm: float = setting(
        2.5,
        "Radius of the needle for which paths are planned, mm.",
        lower_bound=0.1,
        upper_bound=10.0,
    )


@dataclasses.dataclass(frozen=True)
class Demo:
    """Settings of `dartjax demo`."""

    offline: bool = setting(
        False, "Do not download: use the CT if it is cached, else synthetic anatomy."
    )
    levels: str | None = setting(None, _LEVELS)


@dataclasses.dataclass(frozen=True)
class Info:
    """Settings of `dartjax info`."""

    files: tuple[str, ...] = setting((), "Files or folders to describe.", positional=True)
    json: bool = setting(False, "Print one JSON document instead of tables.")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Settings of `dartjax weights`."""

    json: bool = setting(False, "Print one JSON document instead of a list.")


@dataclasses.dataclass(frozen=True)
class Command:
    """Command of `dartjax`: its help, its settings and its main function."""

    summary: str  # its line in `dartjax --help`
    example: str  # a complete call
    about: str  # its description in --help
    settings: type
    main: str  # "module:function"; (ctx, settings) with a run folder, else (settings)
    makes_run: bool = True  # whether it writes a run folder and has the flags for it
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of common flags


COMMANDS: Mapping[str, Command] = {
    "reconstruct": Command(
        summary="Reconstruct vertebrae in 3D, with needle paths, from your own X-rays.",
        example="dartjax reconstruct ap.png lateral.png --cameras=cameras.json",
        about="""\
Reconstruct vertebrae in 3D from calibrated X-rays, and plan a needle path through each pedicle.

The command needs the images and one camera per image. The vertebrae are found in the images, or
start from an initial estimate of each. `dartjax info FILE` shows what is read from a file;
docs/input_formats.md describes the formats. The run folder will hold report.html (open it in a
browser), spine.json, the surfaces as meshes in world mm, metrics.json and config.json. No accuracy
is computed, because the ground truth of your X-rays is unknown.""",
        settings=Reconstruct,
        main="dartjax.cli._reconstruct:main",
    ),
    "demo": Command(
        summary="Run a complete example on X-rays simulated from a chest CT.",
        example="dartjax demo --offline --out=demo",
        about="""\
Reconstruct vertebrae from two X-rays simulated from a CT, and compare them with the CT.

The CT is a real chest CT, downloaded once (34 MB) and cached. If it cannot be downloaded, synthetic
anatomy is used, and the report says so. The command takes some minutes. Open report.html of the run
folder in a browser.""",
        settings=Demo,
        main="dartjax.cli._demo:main",
        defaults={"seed": 3},
    ),
    "info": Command(
        summary="Show what dartjax reads from your files, and what will not work.",
        example="dartjax info ap.png cameras.json",
        about="""\
Show what dartjax reads from files or folders, and warn about what will not work.

Supported are X-ray images (PNG, TIFF, .npy), CTs and masks (NIfTI), meshes (PLY, STL, OBJ), JSON
files (cameras, initial estimates, centroids, manifests, results), run folders, folders of CTs with
masks, and folders of weights or shape models.""",
        settings=Info,
        main="dartjax.cli._info:main",
        makes_run=False,
    ),
    "weights": Command(
        summary="List the packaged shape models, networks and tables, with their licences.",
        example="dartjax weights",
        about="""\
List the shape models, networks and tables that are installed with dartjax. For each it shows the
kind, licence, training subjects, quality, size and folder.""",
        settings=Weights,
        main="dartjax.cli._weights:main",
        makes_run=False,
    ),
}
