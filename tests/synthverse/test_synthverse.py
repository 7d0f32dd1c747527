"""SynthVerSe's anatomy: sizes against the tables, topology, fractures, sides, seeds."""

import numpy as np
import pytest
from skimage.measure import euler_number

from dartjax import data, synthverse
from dartjax.synthverse import (
    LEVELS,
    Fracture,
    VertebraForm,
    _shape,
    _sizes,
    _spine,
    _warp,
    draw_person,
    evaluate,
    parametric_shape,
)

OPTIONS = synthverse.Options(spacing_mm=2.0, view="whole", thick_slices=False, orientations=False)


@pytest.fixture(scope="module")
def people():
    return [draw_person(np.random.default_rng(seed)) for seed in range(200)]


@pytest.fixture(scope="module")
def subject():
    return synthverse.make_subject(0, 2, "parametric", OPTIONS)


def mean_form(level):
    return VertebraForm(**{name: _sizes.mean_of(level, name, "all") for name in _sizes._MEANS})


def box(step=1.0):
    ends = ((-60.0, 60.0), (-80.0, 32.0), (-56.0, 46.0))
    x, y, z = (np.arange(a, b, step, dtype=np.float32) for a, b in ends)
    return x[:, None, None], y[None, :, None], z[None, None, :]


@pytest.mark.parametrize("sex", ["male", "female"])
@pytest.mark.parametrize("level", ["T11", "L1", "L4"])
@pytest.mark.parametrize(
    ("name", "published_name"),
    [("body_width", "endplate_width"), ("canal_width", "canal_width"), ("tp_span", "tp_span")],
)
def test_drawn_sizes_have_the_published_mean_and_spread(people, sex, level, name, published_name):
    entry = data.published(level, sex)[published_name]
    drawn = [getattr(p.forms[level], name) for p in people if p.sex == sex]
    error = entry.sd / np.sqrt(len(drawn))
    assert np.mean(drawn) == pytest.approx(entry.mean, abs=4.0 * error)
    assert np.std(drawn) == pytest.approx(entry.sd, rel=0.2)


def test_levels_and_measures_are_correlated_as_in_the_population(people):
    score = np.array(
        [
            [
                (p.forms[v].canal_width - _sizes.mean_of(v, "canal_width", p.sex))
                / _sizes.spread_of(v, "canal_width", p.sex)
                for v in ("T11", "T12", "L5")
            ]
            for p in people
        ]
    )
    found = np.corrcoef(score.T)
    assert found[0, 1] == pytest.approx(0.71, abs=0.1)
    assert found[0, 2] == pytest.approx(0.33, abs=0.15)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_bone_has_its_drawn_lengths_and_one_canal(level):
    solid = parametric_shape(level, mean_form(level))(*box()) < 0.0
    assert euler_number(solid, connectivity=1) == 0, "one part with one tunnel"
    form = mean_form(level)
    x = np.flatnonzero(solid.any((1, 2)))
    assert np.ptp(x) + 1 == pytest.approx(form.tp_span, abs=3.0)
    front = solid[:, 80:, :]  # ahead of the body's centre
    assert np.ptp(np.flatnonzero(front.any((0, 1)))) + 1 == pytest.approx(form.body_height, abs=3.0)


def test_random_people_keep_one_canal(people):
    for person in people[:2]:
        for level in ("T2", "T5", "T9", "T12", "L3", "L5"):
            warp = _warp.random_warp(np.random.default_rng(3), ((28.0, 0.7), (13.0, 0.5)))
            shape = parametric_shape(level, person.forms[level])
            solid = evaluate(shape, np.eye(4), warp, *box()) < 0.0
            assert euler_number(solid, connectivity=1) == 0, level


@pytest.mark.parametrize(
    ("kind", "places"),
    [("wedge", ("front",)), ("biconcave", ("middle",)), ("crush", ("front", "middle", "back"))],
)
@pytest.mark.parametrize("level", ["T8", "L1"])
def test_fractures_lower_the_height_of_their_type(kind, places, level):
    whole = parametric_shape(level, mean_form(level))
    broken = _shape.dataclasses.replace(whole, fracture=Fracture(kind, 2, 0.35))
    b = whole.bounds
    middle = 0.5 * (b.front + b.wall)
    where = {"front": b.front - 3.0, "middle": middle, "back": b.wall + 2.5}
    z = np.arange(-40.0, 40.0, 0.1, dtype=np.float32)
    heights = {}
    for name, y in where.items():
        heights[name] = [
            (s(np.zeros(1, np.float32), np.full(1, y, np.float32), z) < 0.0).sum() * 0.1
            for s in (whole, broken)
        ]
    for name, (before, after) in heights.items():
        loss = 1.0 - after / before
        if name in places:
            wanted = 0.35 * (b.front - 3.0 - b.wall) / (b.front - b.wall)
            assert loss == pytest.approx(wanted if kind == "wedge" else 0.35, abs=0.04)
        elif kind == "wedge" and name == "back":
            assert loss < 0.08
    solid = broken(*box()) < 0.0
    assert euler_number(solid, connectivity=1) == 0


def test_osteophytes_grow_at_the_rims_in_front_only():
    whole = parametric_shape("L3", mean_form("L3"))
    spurs = (np.full(10, 3.0, np.float32),) * 2
    grown = _shape.dataclasses.replace(whole, spurs=spurs)
    more = (grown(*box()) < 0.0) & ~(whole(*box()) < 0.0)
    _, y, _ = np.nonzero(more)
    assert more.sum() > 500
    assert (y - 80 > whole.bounds.wall - 3.0).all()


def test_warps_do_not_fold():
    warp = _warp.random_warp(np.random.default_rng(0), ((10.0, 6.0),))
    assert _warp.smallest_jacobian(warp, 80.0) >= _warp.MIN_JACOBIAN
    axis = np.linspace(-60.0, 60.0, 40, dtype=np.float32)
    gentle = _warp.random_warp(np.random.default_rng(0), ((30.0, 1.0),))
    size = np.std(_warp.displacement(gentle, axis, axis, axis))
    assert size == pytest.approx(1.0, rel=0.25)


def test_the_curve_has_the_drawn_angles():
    alignment = _spine.draw_alignment(np.random.default_rng(5), "male", 60.0)
    heights = dict.fromkeys(LEVELS, (12.0, 12.0))
    frames = _spine.poses(alignment, heights)

    def pitch(level):
        up = frames[level][:3, 2]
        return np.degrees(np.arctan2(up[1], up[2]))

    assert pitch("T1") - pitch("T12") == pytest.approx(alignment.kyphosis_deg, abs=2.0)
    assert pitch("S1") - pitch("L1") == pytest.approx(alignment.lordosis_deg, abs=2.0)
    plain = {level: (forward, 0.0, 0.0) for level, (forward, _, _) in alignment.curve_deg.items()}
    curved = _shape.dataclasses.replace(alignment, cobb_deg=30.0, apex="T8", curve_deg=plain)
    frames = _spine.poses(curved, heights)
    lean = [np.degrees(np.arcsin(-f[2, 0])) for f in frames.values()]
    assert np.ptp(lean) == pytest.approx(30.0, abs=1.0)
    x = {level: frame[0, 3] for level, frame in frames.items()}
    assert x["T8"] > x["T3"] and x["T8"] > x["L1"], "positive is convex to the right"


def test_people_differ_in_their_curves():
    drawn = [_spine.draw_alignment(np.random.default_rng(i), "male", 55.0) for i in range(40)]
    kyphosis, lordosis = np.array([(each.kyphosis_deg, each.lordosis_deg) for each in drawn]).T
    assert 40.0 < kyphosis.mean() < 55.0 and 4.0 < kyphosis.std() < 12.0
    assert 25.0 < lordosis.mean() < 50.0 and 6.0 < lordosis.std() < 16.0
    lean, turn = (
        np.array([[c[i] for c in each.curve_deg.values()] for each in drawn]) for i in (1, 2)
    )
    assert abs(lean.mean()) < 0.6 and abs(turn.mean()) < 0.6
    assert np.abs(lean).max() < 12.0 and np.abs(turn).max() < 15.0
    old = _spine.draw_alignment(np.random.default_rng(0), "male", 85.0)
    assert old.kyphosis_deg - drawn[0].kyphosis_deg == pytest.approx(3.6, abs=0.1)


def test_labels_are_separate_bones_in_order(subject):
    labels = subject.labels
    assert set(data.LEVEL_OF_LABEL[int(v)] for v in np.unique(labels) if v) >= set(LEVELS[1:])
    for axis in range(3):
        a, b = (np.moveaxis(labels, axis, 0)[side] for side in (slice(None, -1), slice(1, None)))
        assert ((a != b) & (a > 0) & (b > 0)).sum() < 40, "facets of neighbours at most"
    heights = [subject.centroids[data.label_of(v)][2] for v in LEVELS[1:]]
    assert (np.diff(heights) < 0).all()


def test_left_is_left(subject):
    """Aorta and heart on the patient's left (-x), liver on the right."""
    hu = subject.hu
    at = {v: np.rint(subject.centroids[data.label_of(v)]).astype(int) for v in ("T8", "T12")}
    x, y, z = at["T8"]
    assert subject.facts["patient"]["contrast_hu"] > 200.0
    ring = hu[:, y - 2 : y + 20, z - 2 : z + 2].astype(float)
    blood = (ring > 200.0) & (subject.labels[:, y - 2 : y + 20, z - 2 : z + 2] == 0)
    left, right = blood[x - 25 : x - 8].sum(), blood[x + 8 : x + 25].sum()
    assert left > 3 * right
    x, y, z = at["T12"]
    front = hu[:, y + 15 : y + 50, z].astype(float)
    solid = (front > 20.0) & (front < 220.0)
    assert solid[x + 20 :].sum() > 1.3 * solid[: x - 20].sum()


def test_bone_has_a_cortex_and_fades_with_age(subject):
    bone = subject.hu[subject.labels == data.label_of("L3")]
    assert np.percentile(bone, 95) > 400
    assert subject.hu.min() < -900
    ages = np.linspace(25.0, 85.0, 60)
    drawn = [_density(age, i) for i, age in enumerate(ages)]
    assert np.polyfit(ages, drawn, 1)[0] == pytest.approx(-2.7, abs=0.7)


def _density(age, seed):
    from dartjax.synthverse import draw_bone

    return draw_bone(np.random.default_rng(seed), age).trabecular_hu


def test_same_seed_same_subject(subject):
    people = [draw_person(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert people[0] == people[1] != people[2]
    assert subject.facts["seed"] == 0, "whole files are compared in test_synthverse_cohort"


def test_bad_options():
    with pytest.raises(data.DataError, match="spacing"):
        synthverse.make_subject(0, 0, "parametric", synthverse.Options(spacing_mm=9.0))
    with pytest.raises(data.DataError, match="needs meshes"):
        synthverse.make_subject(0, 0, "warped", OPTIONS)
