"""Models of all regions: which shapes they see, and what is remembered."""

import numpy as np
import pytest

from dartjax import data
from dartjax.ssm import build
from dartjax.ssm.build import _quality, _regions


@pytest.fixture(scope="module")
def template():
    return data.load_template()


@pytest.fixture
def built(monkeypatch):
    """Record what each region would be built from, instead of building it."""
    calls = []

    def record(shapes, levels, topology, targets, *, num_modes, recipe, neighbours):
        calls.append((levels, [s.level for s in shapes], [s.level for s in neighbours]))
        mean = np.mean([s.vertices for s in shapes], axis=0)
        modes = np.full((num_modes, *mean.shape), float(len(calls)))
        return build.RegionModel(mean, dict.fromkeys(levels, mean), modes)

    monkeypatch.setattr(_regions, "build_region", record)
    return calls


def shapes_of(template, levels, subject="someone"):
    return [build.Shape(subject, level, template.level_shapes[level]) for level in levels]


def cache():
    stored = {}

    def remember(kind, version, depends_on, like, make):
        key = (kind, version, b"".join(np.ascontiguousarray(a).tobytes() for a in depends_on))
        return stored.setdefault(key, None) or stored.__setitem__(key, make()) or stored[key]

    return remember


def test_neighbours_are_used_where_a_level_is_missing(template, built):
    levels = [f"T{i}" for i in range(4, 13) if i != 10]
    shapes = shapes_of(template, levels)
    build.build_regions(shapes, template.topology, {}, num_modes=1, regions=["T5-T8", "T9-T12"])
    (_, own, none), (_, few, others) = built
    assert own == ["T5", "T6", "T7", "T8"] and none == []
    assert few == ["T9", "T11", "T12"] and others == ["T4", "T5", "T6", "T7", "T8"]


def test_a_region_is_built_again_only_for_other_shapes(template, built):
    remember = cache()
    levels = [f"T{i}" for i in range(5, 9)]
    first = shapes_of(template, levels)
    again = [*first, *shapes_of(template, ["L1"], "another")]  # not of this region

    def build_of(shapes, **changed):
        options = {"num_modes": 1, "regions": ["T5-T8"], "remember": remember} | changed
        return build.build_regions(shapes, template.topology, {}, **options)["T5-T8"]

    one, two = build_of(first), build_of(again)
    assert len(built) == 1
    np.testing.assert_array_equal(one.modes, two.modes)
    other = [*first[:3], first[3]._replace(vertices=1.01 * first[3].vertices)]
    assert build_of(other).modes.max() == 2.0
    assert build_of(first, num_modes=2).modes.shape[0] == 2
    assert build_of(first, recipe=build.Recipe(sample_weight=0.1)).modes.max() == 4.0
    assert build_of([*first[:3], first[3]._replace(people=9)]).modes.max() == 5.0


def test_models_of_so_many_subjects_use_those_with_most_vertebrae(template):
    shapes = [
        *shapes_of(template, ["T5", "T6"], "two"),
        *shapes_of(template, ["T5", "T6", "T7"], "three"),
        *shapes_of(template, ["T7", "T8"], "also two"),
        *shapes_of(template, ["L1", "L2", "L3", "L4"], "lumbar"),
    ]
    kept = _quality._of_most(shapes, "T5-T8", 2)
    assert {shape.subject for shape in kept} == {"three", "also two"}


def test_rows_by_number_of_subjects():
    fits = [{"modes": 15, "dice": dice, "masd_mm": 1.0 - dice} for dice in (0.9, 0.8, 0.95)]
    (row,) = _quality._subject_rows(fits, None)
    assert row["subjects"] == "all" and row["modes"] == 15 and row["left_out_shapes"] == 3
    assert row["median_dice"] == 0.9 and row["lowest_dice"] == 0.8
    assert row["median_masd_mm"] == pytest.approx(0.1)
    assert row["mean_masd_mm"] == pytest.approx(0.35 / 3)
    assert _quality._subject_rows(fits, 2)[0]["subjects"] == 2
