"""Detection of a wire in a check image, and the status without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode, carm, navigation
from dartjax.transforms import SE3, SO3

K = carm.intrinsics(2480.0, jnp.array([384.0, 288.0]))
VIEW = carm.CarmView(K, carm.flat_panel(), SO3.identity())
WIRE = carm.Nail(jnp.asarray(1.0), jnp.asarray(0.0), jnp.asarray(30.0), jnp.array([-100.0, 0.0]))
detect = jax.jit(navigation.detect_wire)


def radiograph(T, seed=0):
    """A wire whose tip is at T's origin, before ribs of bone."""
    rays = carm.image_rays(VIEW)
    bone = 3.0 + 0.3 * jnp.sin(jnp.arange(576) / 25.0)[:, None] * jnp.ones((1, 768))
    metal = jnp.zeros(rays.shape[:2]) if T is None else carm.nail_attenuation(rays, WIRE, T)
    return carm.record_image(bone, metal, key=jax.random.key(seed))


def pose(yaw, pitch):
    turn = SO3.from_z_radians(yaw) @ SO3.from_y_radians(pitch)
    return SE3.from_rotation_and_translation(turn, jnp.array([8.0, -6.0, 700.0]))


@pytest.mark.parametrize(("yaw", "pitch"), [(0.3, 0.0), (-1.2, 0.2), (2.6, 1.2)])
@pytest.mark.slow
def test_axis_and_tip_are_found_near_the_plan(yaw, pitch):
    T = pose(yaw, pitch)
    ends = carm.project_points(K, T, jnp.array([[-40.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    plan = ends + jnp.array([[4.0, -5.0], [-3.0, 2.0]])  # the wire is elsewhere
    seen, status = detect(radiograph(T), plan[0], plan[1])
    assert int(status) == StatusCode.OK
    points = np.asarray(seen.points)[np.asarray(seen.valid)]
    along = np.asarray(ends[1] - ends[0])
    normal = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    off = (points - np.asarray(ends[0])) @ normal
    assert abs(off.mean()) < 0.15 and np.sqrt(np.mean(off**2)) < 0.3
    assert np.linalg.norm(np.asarray(seen.tip - ends[1])) < 1.5


def test_no_wire_and_a_wire_end_on_have_a_status():
    entry, target = jnp.array([300.0, 250.0]), jnp.array([420.0, 300.0])
    assert int(detect(radiograph(None), entry, target)[1]) == StatusCode.DETECTION_FAILED
    end_on = radiograph(pose(0.0, -1.56))
    assert int(detect(end_on, target, target + 5.0)[1]) == StatusCode.DETECTION_FAILED
