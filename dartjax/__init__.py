"""dartjax: vertebrae in 3D from two X-rays, needle paths through them, in JAX.

    radiographs = dartjax.data.load_radiographs(files, cameras)
    spine = dartjax.reconstruct(radiographs)

Names are imported when they are first used, so `import dartjax` costs nothing.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dartjax._errors import DataError as DataError

if TYPE_CHECKING:
    from dartjax._progress import Progress
    from dartjax.camera import Camera as Camera
    from dartjax.image import Radiograph as Radiograph
    from dartjax.observations import Detection, Observations
    from dartjax.observations import NeedlePath as NeedlePath
    from dartjax.pipeline import ReconstructOptions as ReconstructOptions
    from dartjax.pipeline import Spine as Spine
    from dartjax.pipeline import Start

    __version__: str

__all__ = [
    "Camera",
    "DataError",
    "NeedlePath",
    "Radiograph",
    "ReconstructOptions",
    "Spine",
    "__version__",
    "reconstruct",
]

_HOME = {
    "Camera": "dartjax.camera",
    "NeedlePath": "dartjax.observations",
    "Radiograph": "dartjax.image",
    "ReconstructOptions": "dartjax.pipeline",
    "Spine": "dartjax.pipeline",
}


def reconstruct(
    radiographs: "Sequence[Radiograph]",
    *,
    levels: Sequence[str] | None = None,
    observations: "Mapping[str, Detection | Observations] | None" = None,
    starts: "Mapping[str, Start] | None" = None,
    options: "ReconstructOptions | None" = None,
    progress: "Progress | None" = None,
) -> "Spine":
    """Reconstruct all vertebrae of one set of calibrated radiographs, with their needle paths.

    `radiographs` are line-integral images with their cameras (`data.load_radiographs`): one or
    more views of one patient, of any sizes, head up, whose world axes are about the patient's
    (RAS+). The packaged detector finds the vertebrae, matches them between the views, and names
    them; `levels` then limits the names. It is not trained to the end: expect wrong and missing
    vertebrae, and a warning (docs/detection.md).

    Or the caller says, by level, what was seen of a vertebra (`observations`: a `Detection` in
    whole radiographs, or `Observations` in crops), where it roughly is (`starts`: T_world_vertebra
    in mm, within about 10 mm and 15 degrees, or what `data.load_starts` reads), or both; `levels`
    then picks some of them.

    All vertebrae are fitted together (the objective of Spine-DART, arXiv 2512.05803, with the
    neighbours rendered: `registration.fit_together`). Where the packaged failure model can say how
    likely an answer failed (a mask in every view), a doubtful one is fitted again, and what stays
    doubtful is abstained from. Both transpedicular paths are carried by each surface, and their
    clearance in it is measured.

    Runs on the host in float32, whatever `jax_enable_x64` says, and compiles once for up to four,
    eight, ... vertebrae. `progress` shows how far it is (`cli.progress` on a terminal).

    DataError, with the reason, if no vertebra is found in two views, or the views do not agree;
    for no radiograph, pixels that are not finite, an image of another size than its camera's, a
    level that nothing was said of or that has no shape model, and views that do not show a
    vertebra whose start is given. The stages are functions of `dartjax.pipeline`.
    """
    from dartjax import pipeline  # noqa: PLC0415

    return pipeline.reconstruct(
        radiographs,
        levels=levels,
        observations=observations,
        starts=starts,
        options=options,
        progress=progress,
    )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dartjax")
    raise AttributeError(f"module 'dartjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
