"""Heights of vertebral bodies."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, ssm, transforms
from dartjax.mesh import TriangleMesh
from dartjax.pipeline.studies._fractures import body_heights

POSE = transforms.SE3.from_rotation_and_translation(
    transforms.SO3.exp(jnp.array([0.3, -0.2, 0.5])), jnp.array([10.0, 80.0, -40.0])
)


@pytest.fixture(scope="module")
def model():
    return ssm.with_fracture_modes(ssm.truncate(data.load_shape_model("L1"), 3), loss_sd=0.2)


def heights(model, coefficients):
    vertices = ssm.posed(model, POSE, jnp.asarray(coefficients, jnp.float32))
    return body_heights(TriangleMesh(vertices, model.faces), POSE)


def test_heights_of_an_intact_body_are_those_of_its_landmarks(model):
    points = ssm.landmarks(model, model.mean_shape)
    found = heights(model, np.zeros(6))
    assert found["middle"] == pytest.approx(float(points[0, 2] - points[1, 2]), abs=1.0)
    assert 20.0 < found["anterior"] < 32.0


def test_a_wedge_takes_more_in_front_and_a_biconcave_in_the_middle(model):
    intact, wedge, hollow = (
        heights(model, [0.0, 0.0, 0.0, *losses])
        for losses in ([0.0] * 3, [2.0, 0.0, 0.0], [0.0, 2.0, 0.0])
    )
    lost = {place: 1.0 - wedge[place] / intact[place] for place in intact}
    assert 0.25 < lost["anterior"] < 0.4 and lost["middle"] < lost["anterior"]
    lost = {place: 1.0 - hollow[place] / intact[place] for place in intact}
    assert lost["middle"] == pytest.approx(0.4, abs=0.05) and lost["anterior"] < 0.25
