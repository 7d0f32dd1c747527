"""Registration of many surfaces: cache and starting shapes."""

import numpy as np
import pytest

from dartjax import data
from dartjax.ssm import build
from dartjax.ssm.build import _registration


@pytest.mark.slow
def test_registration_resumes_from_its_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path))
    template = data.load_template()
    shape = template.level_shapes["T8"] * 1.03
    surface = build.TrainingSurface("someone", "T8", shape, template.topology.faces)
    arguments = {"remember": data.remembered, "num_rounds": 1}
    first = build.register_surfaces([surface], template, **arguments)
    assert first[0].residual_mm < 0.1
    monkeypatch.setattr(_registration, "correspond", None)  # a second registration would fail
    again = build.register_surfaces([surface], template, **arguments)
    np.testing.assert_array_equal(again[0].vertices, first[0].vertices)


def test_rounds_start_from_the_nearest_level_and_then_from_the_means(monkeypatch):
    """With registration replaced by a stub that returns its start."""
    template = data.load_template()
    faces = template.topology.faces
    starts = []

    def keep(start, start_faces, vertices, vertex_faces):
        starts.append(start)
        return build.Correspondence(vertices, 0.1, 0.2)

    monkeypatch.setattr(_registration, "correspond", keep)
    surface = build.TrainingSurface("someone", "T1", template.level_shapes["T2"], faces, people=3)
    notes = []
    (found,) = build.register_surfaces([surface], template, step=notes.append)
    np.testing.assert_array_equal(starts[0], template.level_shapes["T2"])  # it has no T1
    means = build.level_means([found.shape], template.topology)
    np.testing.assert_array_equal(starts[1], means["T1"])
    assert notes == ["round 1: someone T1 0.20 mm", "round 2: someone T1 0.20 mm"]
    assert found.shape.people == 3


def test_later_rounds_start_from_the_means_of_chosen_subjects(monkeypatch):
    """So that a registration does not depend on who else is in the set."""
    template = data.load_template()
    shape, faces = template.level_shapes["T8"], template.topology.faces
    starts = {}

    def keep(start, start_faces, vertices, vertex_faces):
        starts[float(np.ptp(vertices[:, 1]))] = start
        return build.Correspondence(vertices, 0.1, 0.2)

    monkeypatch.setattr(_registration, "correspond", keep)
    surfaces = [
        build.TrainingSurface(name, "T8", shape * factor, faces)
        for name, factor in (("first", 1.0), ("second", 1.1), ("third", 0.9))
    ]
    found = build.register_surfaces(surfaces, template, start_subjects=["first"])
    means = build.level_means([found[0].shape], template.topology)
    assert len(starts) == 3
    for start in starts.values():
        np.testing.assert_array_equal(start, means["T8"])
    build.register_surfaces(surfaces[1:], template, start_subjects=["first"])  # it is not there
    means = build.level_means([each.shape for each in found[1:]], template.topology)
    np.testing.assert_array_equal(starts[float(np.ptp(surfaces[1].vertices[:, 1]))], means["T8"])
