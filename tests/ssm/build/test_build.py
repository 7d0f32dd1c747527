"""Models of a region: means, modes, published lengths, interpolated levels."""

import numpy as np
import pytest

from dartjax import data, ssm
from dartjax.ssm import build
from dartjax.ssm.build import _build

LEVELS = ("T5", "T6", "T7", "T8")


pytestmark = pytest.mark.slow  # a region is built


@pytest.fixture(scope="module")
def template():
    return data.load_template()


@pytest.fixture(scope="module")
def shapes(template):
    """The template's own shapes of T5, T7 and T8, skewed to one side; none of T6."""
    skew = np.array([[1.0, 0.02, 0.0], [0.0, 1.0, 0.0], [0.03, 0.0, 1.0]])
    return [
        build.Shape("someone", level, template.level_shapes[level] @ skew)
        for level in ("T5", "T7", "T8")
    ]


@pytest.fixture(scope="module")
def region(template, shapes):
    wide = build.Target(8.0, 1.0)
    targets = {"T7": {"pedicle_width_left": wide, "pedicle_width_right": wide}}
    return build.build_region(shapes, LEVELS, template.topology, targets, num_modes=20)


def test_means_are_symmetric_and_in_their_vertebra_frame(template, region):
    topology = template.topology
    assert tuple(region.level_shapes) == LEVELS
    for mean in region.level_shapes.values():
        np.testing.assert_allclose(mean[topology.mirror] * [-1.0, 1.0, 1.0], mean, atol=1e-9)
        pose = ssm.vertebra_frame(mean, topology.faces)
        assert np.abs(pose[:3, 3]).max() < 0.4
        assert np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1))) < 1.0


def test_a_level_without_shapes_lies_between_its_neighbours(template, region):
    width = {
        level: build.measure(mean, template.topology.faces)["tp_span"].value
        for level, mean in region.level_shapes.items()
    }
    assert min(width["T5"], width["T7"]) - 0.5 < width["T6"] < max(width["T5"], width["T7"]) + 0.5


def test_published_length_moves_the_mean(template, shapes, region):
    plain = build.build_region(shapes, LEVELS, template.topology, {}, num_modes=20)
    before, after = (
        build.measure(model.level_shapes["T7"], template.topology.faces)["pedicle_width_left"].value
        for model in (plain, region)
    )
    share = (after - before) / (8.0 - before)
    # One person against a table: (1 + .25) / (1 + .25 + .25) of the way.
    assert share == pytest.approx(1.25 / 1.5, abs=0.12)


def test_modes_are_sorted_and_contain_the_samples(template, shapes, region):
    """Modes of a model trained on a shape fit it better."""
    variance = np.square(region.modes).sum((1, 2))
    assert variance[0] > 5.0 * variance[-1]
    deviation = _build.rigidly_onto(shapes[0].vertices, region.mean_shape) - region.mean_shape
    smooth = build.smooth_modes(region.mean_shape, template.topology.faces, 20)

    def left_over(modes):
        basis = np.linalg.qr(modes.reshape(len(modes), -1).T)[0]
        rest = deviation.ravel() - basis @ (basis.T @ deviation.ravel())
        return float(rest @ rest)

    assert left_over(region.modes) < 0.8 * left_over(smooth)


def test_too_few_shapes_are_rejected(template, shapes):
    with pytest.raises(ValueError, match="no shapes of T5 to T8"):
        build.build_region([], LEVELS, template.topology, {}, num_modes=5)
    with pytest.raises(ValueError, match="no two levels"):
        build.build_region(shapes[:1], LEVELS, template.topology, {}, num_modes=5)


def test_means_are_weighted_by_people(template):
    base = template.level_shapes["T7"]
    one, many = build.Shape("one", "T7", 1.1 * base), build.Shape("many", "T7", base, 9)
    mean = build.level_means([one, many], template.topology)["T7"]
    size = np.linalg.norm(mean - mean.mean(0)) / np.linalg.norm(base - base.mean(0))
    assert size == pytest.approx(1.01, abs=1e-3)


def test_modes_are_reduced_until_no_surface_intersects_itself(template, region):
    topology = template.topology
    for mode in region.modes[:15]:
        for mean in region.level_shapes.values():
            for size in (-3.0, 3.0):
                assert not len(build.self_intersections(mean + size * mode, topology.faces))


def test_a_step_toward_published_lengths_is_never_away_from_them(template, region):
    """With targets far outside the linear range, the measured error does not increase."""
    topology, mean = template.topology, region.level_shapes["T7"]
    lengths = _build.linear_lengths(mean, topology)
    spread = 0.1 * lengths(mean)
    for factor in (1.1, 1.8):
        wanted = factor * lengths(mean)
        moved, lengths_after = _build._step_to_lengths(
            region.modes, lengths, mean, wanted, spread, topology
        )
        before = np.linalg.norm((lengths(mean) - wanted) / spread)
        assert np.linalg.norm((lengths_after(moved) - wanted) / spread) <= before
        exact = _build.linear_lengths(moved, topology)
        np.testing.assert_allclose(exact(moved), lengths_after(moved))
