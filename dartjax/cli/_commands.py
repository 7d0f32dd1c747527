"""The commands of `dartjax`: what each does, its settings, and where its main is.

Imports no JAX: the main of a command is imported when it runs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dartjax.cli._settings import setting

_LEVELS = "Only these levels, such as L1-L3 or T12,L1."


@dataclasses.dataclass(frozen=True)
class Reconstruct:
    """The X-rays, what is known of them, and how they are answered."""

    images: tuple[str, ...] = setting(
        (),
        "Your X-rays, one file per view: PNG (8 or 16 bit), TIFF or .npy. Two views are best.",
        positional=True,
    )
    cameras: str | None = setting(
        None, "JSON with one camera per X-ray, in the order of the X-rays. Needed."
    )
    init: str | None = setting(
        None,
        "JSON with the rough start of each vertebra: one object with its level, or a list of "
        "them. Needed.",
    )
    levels: str | None = setting(None, "Only these of the file's levels, such as L1-L3.")
    pixels: str = setting(
        "line_integral",
        "What the pixels of the X-rays are: line integrals (bone bright) or raw intensity (air "
        "bright).",
        choices=("line_integral", "intensity"),
    )
    recipe: str = setting(
        "classical",
        "How the vertebrae are fitted. classical: all together; alone: each by itself; faithful: "
        "by the learned similarity alone; ours: classical with the learned similarity.",
        choices=("classical", "alone", "faithful", "ours"),
    )
    similarity: str | None = setting(
        None, "Folder of weights of the learned similarity. Default: the packaged ones."
    )
    restarts: int = setting(
        1, "Starts per vertebra that is fitted alone; the best is kept.", lower_bound=1
    )
    ssm: str | None = setting(None, "Folder of other shape models than the packaged ones.")
    needle_radius_mm: float = setting(
        2.5, "Radius of the needle whose paths are planned, mm.", lower_bound=0.1, upper_bound=10.0
    )


@dataclasses.dataclass(frozen=True)
class Demo:
    """Where the anatomy of the demo comes from."""

    offline: bool = setting(
        False, "Fetch nothing: the CT if it is on this machine, else synthetic anatomy."
    )
    levels: str | None = setting(None, _LEVELS)


@dataclasses.dataclass(frozen=True)
class Info:
    """The files to look into."""

    files: tuple[str, ...] = setting((), "Files or folders to look into.", positional=True)
    json: bool = setting(False, "Print one JSON document instead of tables.")


@dataclasses.dataclass(frozen=True)
class Weights:
    """How the list is printed."""

    json: bool = setting(False, "Print one JSON document instead of a list.")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: how it is shown, its settings, and the main that it runs."""

    summary: str  # one line of `dartjax --help`
    example: str  # a call that makes sense as it stands
    about: str  # what --help says of it
    settings: type
    main: str  # "module:function"; (ctx, settings) with a run folder, else (settings)
    makes_run: bool = True  # whether it writes a run folder, and has the flags that go with it
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of common flags


COMMANDS: Mapping[str, Command] = {
    "reconstruct": Command(
        summary="Vertebrae in 3D, and a needle path through each pedicle, from your X-rays.",
        example="dartjax reconstruct ap.png lateral.png --cameras=cameras.json --init=init.json",
        about="""\
Reconstruct vertebrae in 3D from calibrated X-rays, and plan a needle path through each pedicle.

Needed are the images, a camera for each of them, and roughly where each vertebra is
(`dartjax info FILE` shows what is read from each file; docs/input_formats.md has their formats).
The run folder then holds report.html (open it in a browser), spine.json, the surfaces as meshes
in world mm, metrics.json and config.json. X-rays without ground truth are not graded.""",
        settings=Reconstruct,
        main="dartjax.cli._reconstruct:main",
    ),
    "demo": Command(
        summary="The whole way on an example: X-rays of a real chest CT, or synthetic anatomy.",
        example="dartjax demo --offline --out=demo",
        about="""\
Reconstruct vertebrae from two X-rays simulated from a CT, and grade them against it.

The CT is one real chest CT, fetched once (34 MB) and kept; where it cannot be had the anatomy is
synthetic, and the page says so. Takes some minutes. Open report.html of the run folder in a
browser.""",
        settings=Demo,
        main="dartjax.cli._demo:main",
        defaults={"seed": 3},
    ),
    "info": Command(
        summary="What dartjax reads from a file: run it first when something looks wrong.",
        example="dartjax info ap.png cameras.json",
        about="""\
Show what dartjax reads from files or folders, and what will not work with them.

Understood are X-ray images (PNG, TIFF, .npy), CTs and masks (NIfTI), meshes (PLY, STL, OBJ), JSON
files (cameras, starts of vertebrae, centroids, manifests, results), run folders, folders of CTs
with masks, and folders of weights or shape models.""",
        settings=Info,
        main="dartjax.cli._info:main",
        makes_run=False,
    ),
    "weights": Command(
        summary="What comes with dartjax: shape models, networks, tables, with their licences.",
        example="dartjax weights",
        about="""\
List the shape models, networks and tables that are installed with dartjax: what each is, its
licence, who it was built from or trained on, how good it is, its size and where it lies.""",
        settings=Weights,
        main="dartjax.cli._weights:main",
        makes_run=False,
    ),
}
