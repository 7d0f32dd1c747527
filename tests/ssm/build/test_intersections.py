"""Self-intersections: known cases, and MeshLab where it is installed."""

import numpy as np
import pytest

from dartjax import data
from dartjax.ssm import build
from tests import shapes


def _two_spheres(apart):
    vertices, faces = (np.asarray(a) for a in shapes.sphere(400, 10.0))
    both = np.concatenate([vertices, vertices + np.array([apart, 0.3, 0.2])])
    return both.astype(float), np.concatenate([faces, faces + len(vertices)])


def test_apart_and_one_through_the_other():
    assert len(build.self_intersections(*_two_spheres(20.5))) == 0
    vertices, faces = _two_spheres(15.0)
    hit = build.self_intersections(vertices, faces)
    # Two unlike circles of triangles, one on each sphere, both near the plane between them.
    half = len(faces) // 2
    assert (hit < half).any() and (hit >= half).any()
    assert np.abs(vertices[faces[hit]].mean(1)[:, 0] - 7.5).max() < 4.0


def test_one_inside_the_other_does_not_touch_it():
    vertices, faces = (np.asarray(a) for a in shapes.sphere(400, 10.0))
    both = np.concatenate([vertices, 0.5 * vertices]).astype(float)
    assert len(build.self_intersections(both, np.concatenate([faces, faces + len(vertices)]))) == 0


def test_agrees_with_meshlab_on_a_vertebra_out_of_shape():
    pymeshlab = pytest.importorskip("pymeshlab")
    template = data.load_template()
    faces = template.topology.faces
    mean = template.level_shapes["T9"]
    modes = build.smooth_modes(mean, faces, 40)
    counts = []
    for mode in (0, 20, 39):
        moved = mean + 30.0 * modes[mode]
        meshes = pymeshlab.MeshSet()
        meshes.add_mesh(pymeshlab.Mesh(moved, faces))
        meshes.compute_selection_by_self_intersections_per_face()
        counts.append(
            (
                len(build.self_intersections(moved, faces)),
                meshes.current_mesh().selected_face_number(),
            )
        )
    assert any(theirs > 50 for _, theirs in counts)
    for ours, theirs in counts:
        assert abs(ours - theirs) <= 2 + 0.15 * theirs
