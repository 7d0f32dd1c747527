"""Draw the X-rays and the 3D view of a reconstruction report."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dartjax import data, pipeline
from dartjax.camera import Camera
from dartjax.data import NEEDLE_RADIUS_MM
from dartjax.image import Radiograph, silhouette_contours
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES
from dartjax.pipeline import Answers, Estimate, Task
from dartjax.render import SplatOptions, splat
from dartjax.report._figures import (
    AFTER,
    BEFORE,
    TRUTH,
    Contour,
    radiograph_figure,
)
from dartjax.report._html import Figure, ReportCase
from dartjax.report._viewer import ViewerMesh, ViewerPath, decimate

PAIRS_SHOWN = 3  # of a subject in the report
_TRUTH_FACES = 8000
_silhouette = jax.jit(
    lambda mesh, view: splat(mesh.vertices, mesh.faces, view, SplatOptions(window=25)).silhouette
)


class Shown(NamedTuple):
    """Vertebra in the 3D view; `paths` as in paths.json."""

    level: str
    surface: TriangleMesh
    truth: TriangleMesh | None
    paths: Mapping[str, Any]


def radiograph_pngs(answers: Answers, headline: str) -> dict[str, bytes]:
    """Draw the X-rays of the first pairs of views with the outlines before and after the fit.

    Return PNGs by file name.
    """
    figures = {}
    for pair, views in answers.radiographs.items():
        if pair >= PAIRS_SHOWN:
            continue
        outlines = [
            _outlines(task, estimate)
            for task, estimate in zip(answers.tasks, answers.estimates[headline], strict=True)
            if task.pair == pair and not pipeline.no_answer_reason(task, estimate)
        ]
        for i, view in enumerate(views):
            figures[_figure_name(pair, i)] = radiograph_png(i, view, outlines)
    return figures


def _outlines(task: Task, estimate: Estimate) -> tuple[TriangleMesh, TriangleMesh]:
    before = pipeline.estimated_surface(task, pipeline.start_estimate(task))
    return before, pipeline.estimated_surface(task, estimate)


def radiograph_png(
    index: int, view: Radiograph, surfaces: Sequence[tuple[TriangleMesh, TriangleMesh]]
) -> bytes:
    """Draw one X-ray with the outlines of every vertebra before and after the fit, as a PNG."""
    contours = []
    for before, after in surfaces:
        contours.append(_contour(before, view.camera, BEFORE, "start"))
        contours.append(_contour(after, view.camera, AFTER, "reconstruction"))
    return radiograph_figure(view.image, contours, title=f"X-ray {index + 1}")


def sections(
    folder: pathlib.Path, cases: Sequence[Mapping[str, Any]], paths: Mapping[str, Any]
) -> list[ReportCase]:
    """Make a report section for every pair of views of one subject that has figures."""
    found = []
    for pair in sorted({case["pair"] for case in cases}):
        pngs = []
        while (file := folder / _figure_name(pair, len(pngs))).is_file():
            pngs.append(file.read_bytes())
        if not pngs:
            continue
        subject = cases[0]["subject"]
        shown = []
        for level in [case["level"] for case in cases if case["pair"] == pair]:
            name = f"{subject}_{level}_pair{pair + 1}"
            if name in paths:
                surface = data.load_mesh(folder / f"{name}.ply")
                truth = data.load_mesh(folder / f"{subject}_{level}_truth.ply")
                shown.append(Shown(level, surface, truth, paths[name]))
        found.append(section(f"{subject}, views {pair + 1}", pngs, shown))
    return found


def section(title: str, pngs: Sequence[bytes], shown: Sequence[Shown]) -> ReportCase:
    """Make a report section of X-rays and a 3D view."""
    return ReportCase(
        title=title,
        figures=[
            Figure(png, f"X-ray {i + 1}: outlines before and after the fit")
            for i, png in enumerate(pngs)
        ],
        meshes=[mesh for each in shown for mesh in _meshes(each)],
        paths=[path for each in shown for path in _paths(each)],
    )


def _figure_name(pair: int, view: int) -> str:
    return f"pair{pair + 1}_view{view + 1}.png"


def _contour(mesh: TriangleMesh, view: Camera, colour: str, label: str) -> Contour:
    outline = silhouette_contours(np.asarray(_silhouette(mesh, view)))
    return Contour(outline, colour, label)


def _meshes(shown: Shown) -> list[ViewerMesh]:
    surface = shown.surface
    meshes = [ViewerMesh(shown.level, "reconstruction", surface.vertices, surface.faces, AFTER)]
    if shown.truth:
        vertices, faces = np.asarray(shown.truth.vertices), np.asarray(shown.truth.faces)
        truth = decimate(vertices, faces, _TRUTH_FACES)
        meshes.append(ViewerMesh(shown.level, "ground truth", *truth, TRUTH, opacity=0.35))
    return meshes


def _paths(shown: Shown) -> list[ViewerPath]:
    paths = []
    for side in SIDES:
        entry, target = (
            np.asarray(shown.paths[side][end], float) for end in ("entry_point", "target_point")
        )
        if np.isfinite(entry).all() and np.isfinite(target).all():
            radius = NEEDLE_RADIUS_MM
            paths.append(ViewerPath(shown.level, entry, target, radius))
    return paths
