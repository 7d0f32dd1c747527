"""Heights of bodies, and the rows of the fracture study."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, ssm, transforms
from dartjax.mesh import TriangleMesh
from experiments.fractures import report as fractures_report
from experiments.fractures.report import OFF, ON

POSE = transforms.SE3.from_rotation_and_translation(
    transforms.SO3.exp(jnp.array([0.3, -0.2, 0.5])), jnp.array([10.0, 80.0, -40.0])
)


@pytest.fixture(scope="module")
def model():
    return ssm.with_fracture_modes(ssm.truncate(data.load_shape_model("L1"), 3), loss_sd=0.2)


def heights(model, coefficients):
    vertices = ssm.posed(model, POSE, jnp.asarray(coefficients, jnp.float32))
    return fractures_report.body_heights(TriangleMesh(vertices, model.faces), POSE)


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


def test_rows_are_by_grade_and_arm():
    cases = [
        {
            "grade": grade,
            "arm": arm,
            "dice": 0.8,
            "masd_mm": 1.0,
            "anterior_height_error_mm": error,
            "middle_height_error_mm": -error,
        }
        for grade in (0, 3)
        for arm in (OFF, ON)
        for error in (-1.0, 2.0, 3.0)
    ]
    rows = fractures_report.rows_of(cases)
    assert [(row["grade"], row["arm"], row["n"]) for row in rows] == [
        (0, OFF, 3),
        (0, ON, 3),
        (3, OFF, 3),
        (3, ON, 3),
    ]
    assert rows[0]["anterior height error [mm]"] == pytest.approx(2.0)
    assert rows[0]["middle bias [mm]"] == pytest.approx(-4.0 / 3.0)
