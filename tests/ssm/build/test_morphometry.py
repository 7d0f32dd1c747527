"""Published lengths: known on the phantom, on tilted arches, and near the tables on templates."""

import numpy as np
import pytest

from dartjax.data.packaged import _shape_models as data
from dartjax.ssm import build
from dartjax.ssm._voxels import solid_of
from dartjax.ssm.build import _morphometry
from tests import shapes
from tests.ssm import phantom

DIAMETER = 2 * phantom.PEDICLE["radius"]


@pytest.fixture(scope="module")
def calipers():
    return build.measure(*phantom.vertebra())


def test_lengths_of_the_phantom(calipers):
    assert tuple(calipers) == build.MEASURES
    value = {name: caliper.value for name, caliper in calipers.items()}
    height = 2 * phantom.BODY["height"]
    assert value["body_height"] == pytest.approx(height, abs=0.5)
    assert value["body_height_post"] == pytest.approx(height, abs=0.5)
    # The pedicles' feet add up to a millimetre in the upper fifth.
    assert 0.0 < value["endplate_width"] - 2 * phantom.BODY["width"] < 1.5
    assert value["tp_span"] == pytest.approx(64.0, abs=0.2)
    # From the body's back (y = -13) to the lamina (y = -26), between round pedicles.
    assert value["canal_depth"] == pytest.approx(13.0, abs=0.5)
    between = 2 * (phantom.PEDICLE["x"] - phantom.PEDICLE["radius"])
    assert between - 0.5 < value["canal_width"] < between + 3.0
    for side in ("left", "right"):
        assert value[f"pedicle_width_{side}"] == pytest.approx(DIAMETER, abs=0.5)
        assert value[f"pedicle_height_{side}"] == pytest.approx(DIAMETER, abs=0.5)


def test_ends_lie_where_the_lengths_are(calipers):
    depth = phantom.BODY["depth"]
    posterior, anterior = calipers["body_height_post"].ends, calipers["body_height"].ends
    assert -depth - 0.5 < posterior[0, 1] < 0.5 < anterior[0, 1] < depth
    np.testing.assert_allclose(anterior[:, 2], [-11.0, 11.0], atol=0.3)
    for name in ("endplate_width", "canal_width", "tp_span", "pedicle_width_left"):
        left, right = calipers[name].ends
        assert left[0] < right[0]
    np.testing.assert_allclose(
        calipers["pedicle_height_right"].ends[:, 0], phantom.PEDICLE["x"], atol=0.5
    )
    np.testing.assert_allclose(calipers["canal_depth"].ends[:, 1], [-26.0, -13.0], atol=0.5)


@pytest.mark.parametrize(
    ("name", "axis"), [("tp_span", 0), ("endplate_width", 0), ("body_height", 2)]
)
def test_lengths_scale_with_the_bone(calipers, name, axis):
    vertices, faces = phantom.vertebra()
    stretch = np.ones(3)
    stretch[axis] = 1.2
    longer = build.measure(vertices * stretch, faces)[name].value
    assert longer == pytest.approx(1.2 * calipers[name].value, rel=0.04)


def test_arch_that_leaves_every_axial_slice_open(calipers):
    vertices, faces = phantom.vertebra()
    steep = vertices.copy()
    steep[:, 2] += 0.9 * np.minimum(steep[:, 1] + 13.0, 0.0)
    assert not _morphometry._canal_slices(solid_of(steep, faces))
    found = build.measure(steep, faces)
    for name in ("canal_width", "body_height", "endplate_width"):
        assert found[name].value == pytest.approx(calipers[name].value, abs=1.0)
    np.testing.assert_allclose(found["canal_depth"].ends[:, 1], [-26.0, -13.0], atol=2.0)


def test_vertebra_without_a_closed_canal_is_rejected():
    vertices, faces = phantom.vertebra()
    far = vertices.copy()
    far[:, 2] += 3.0 * np.minimum(far[:, 1] + 13.0, 0.0)
    with pytest.raises(ValueError, match="no slice encloses the canal"):
        build.measure(far, faces)
    with pytest.raises(ValueError, match="no canal"):
        build.measure(*shapes.sphere(500, 20.0))


@pytest.mark.parametrize("level", ["T1", "T6", "T12", "L3", "L5"])
def test_templates_measure_like_vertebrae(level):
    """Bounds from anatomy: Zindrick 1987 and Panjabi 1991, 1992, four spreads wide."""
    model = data.load_shape_model(level)
    found = build.measure(np.asarray(model.mean_shape, float), np.asarray(model.faces))
    value = {name: caliper.value for name, caliper in found.items()}
    lumbar = level.startswith("L")
    assert (22 if lumbar else 14) < value["body_height"] < (38 if lumbar else 32)
    assert 0.75 < value["body_height"] / value["body_height_post"] < 1.35
    assert 20 < value["endplate_width"] < 60
    assert 12 < value["canal_width"] < 40
    assert 11 < value["canal_depth"] < 24
    assert 40 < value["tp_span"] < 110
    for side in ("left", "right"):
        assert 3 < value[f"pedicle_width_{side}"] < 24
        assert 7 < value[f"pedicle_height_{side}"] < 25
