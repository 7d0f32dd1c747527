"""The vertebra frame from geometry, on a phantom in known poses."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dartjax import mesh, ssm
from tests import shapes
from tests.ssm import phantom


def test_phantom_has_one_canal_and_outward_faces():
    vertices, faces = phantom.vertebra()
    assert mesh.euler_characteristic(faces) == 0
    assert mesh.volume(jnp.asarray(vertices), jnp.asarray(faces)) > 0


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-20, 5, -6)])
def test_frame_follows_the_bone(angles):
    vertices, faces = phantom.vertebra()
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    shift = np.array([30.0, -80.0, 400.0])
    pose = ssm.vertebra_frame(vertices @ rotation.T + shift, faces)
    between = rotation.T @ pose[:3, :3]
    error = np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))
    assert error < 1.0
    assert np.linalg.norm(rotation.T @ (pose[:3, 3] - shift)) < 0.6
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0, abs=1e-9)


def test_mesh_without_canal_is_rejected():
    vertices, faces = shapes.sphere(500, 20.0)
    with pytest.raises(ValueError, match="no canal"):
        ssm.vertebra_frame(vertices, faces)
