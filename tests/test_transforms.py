"""Views, C-arm angles and rigid alignment, against hand-written directions in the patient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from dartjax import transforms
from dartjax.transforms import SE3, SO3
from tests.gradients import assert_gradient

RIGHT, ANTERIOR, SUPERIOR = np.eye(3)
WEIGHTS = np.array([0.3, -0.7, 1.1, 0.9])

# What the camera axes (u right, v down, beam) point at in the patient.
GOLDEN_VIEWS = {
    "AP": (-RIGHT, -SUPERIOR, -ANTERIOR),
    "PA": (RIGHT, -SUPERIOR, ANTERIOR),
    "LAT_L": (ANTERIOR, -SUPERIOR, -RIGHT),  # beam towards the left side: it is at the detector
    "LAT_R": (-ANTERIOR, -SUPERIOR, RIGHT),
}


def random_pose(seed):
    return SE3.exp(0.7 * jax.random.normal(jax.random.key(seed), (6,)))


@pytest.mark.parametrize("name", GOLDEN_VIEWS)
def test_named_views(name):
    matrix = np.asarray(transforms.view_rotation(name).as_matrix())
    np.testing.assert_allclose(matrix, np.stack(GOLDEN_VIEWS[name], axis=1), atol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-6)


def test_unknown_view_names_the_choices():
    with pytest.raises(ValueError, match="AP, PA, LAT_L, LAT_R"):
        transforms.view_rotation("oblique")


@pytest.mark.parametrize(
    ("primary_deg", "secondary_deg", "beam"),
    [
        (0, 0, ANTERIOR),
        (90, 0, -RIGHT),  # LAO: the receptor moves to the patient's left
        (-90, 0, RIGHT),  # RAO
        (180, 0, -ANTERIOR),
        (0, 90, SUPERIOR),  # CRA: the receptor moves towards the head
        (30, 0, [-0.5, np.sqrt(0.75), 0.0]),
        (0, -30, [0.0, np.sqrt(0.75), -0.5]),
        (30, 60, [-0.25, np.sqrt(0.75) / 2, np.sqrt(0.75)]),
    ],
)
def test_carm_angles_place_the_receptor(primary_deg, secondary_deg, beam):
    rotation = transforms.carm_rotation(np.radians(primary_deg), np.radians(secondary_deg))
    matrix = np.asarray(rotation.as_matrix())
    np.testing.assert_allclose(matrix[:, 2], beam, atol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "primary"), [("PA", 0.0), ("LAT_L", np.pi / 2), ("LAT_R", -np.pi / 2), ("AP", np.pi)]
)
def test_carm_angles_of_the_named_views(name, primary):
    np.testing.assert_allclose(
        transforms.carm_rotation(primary, 0.0).as_matrix(),
        transforms.view_rotation(name).as_matrix(),
        atol=1e-6,
    )


def test_in_plane_angle_turns_u_toward_v():
    turned = np.asarray(transforms.carm_rotation(0.3, 0.2, np.pi / 2).as_matrix())
    straight = np.asarray(transforms.carm_rotation(0.3, 0.2).as_matrix())
    np.testing.assert_allclose(turned[:, 0], straight[:, 1], atol=1e-6)
    np.testing.assert_allclose(turned[:, 2], straight[:, 2], atol=1e-6)


def test_perturb_turns_about_the_objects_origin():
    pose = random_pose(0)
    moved = transforms.perturb(pose, jnp.array([0.0, 0.0, np.pi / 2]), jnp.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(
        moved.translation(), pose.translation() + jnp.array([1.0, 2.0, 3.0]), atol=1e-6
    )
    x_axis, y_axis, z_axis = np.asarray(pose.rotation().as_matrix())
    expected = np.stack([-y_axis, x_axis, z_axis])  # a quarter turn about world z
    np.testing.assert_allclose(moved.rotation().as_matrix(), expected, atol=1e-6)


def test_perturb_has_the_plain_derivative_at_identity(x64):
    def moved(parameters):
        pose = transforms.perturb(SE3.identity(), parameters[:3], parameters[3:])
        return transforms.apply(pose, jnp.array([[1.0, 2.0, 3.0]]))[0]

    jacobian = jax.jacobian(moved)(jnp.zeros(6))
    cross = np.array([[0.0, 3.0, -2.0], [-3.0, 0.0, 1.0], [2.0, -1.0, 0.0]])  # w x p = cross @ w
    np.testing.assert_allclose(jacobian, np.concatenate([cross, np.eye(3)], axis=1), atol=1e-9)


def test_apply_maps_b_into_a():
    pose = random_pose(1)
    points = jax.random.normal(jax.random.key(2), (5, 3))
    homogeneous = np.concatenate([points, np.ones((5, 1))], axis=1)
    expected = (homogeneous @ np.asarray(pose.as_matrix()).T)[:, :3]
    np.testing.assert_allclose(transforms.apply(pose, points), expected, atol=1e-5)
    back = transforms.apply(pose.inverse(), transforms.apply(pose, points))
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_from_matrix_round_trip():
    pose = random_pose(3)
    again = transforms.from_matrix(pose.as_matrix())
    np.testing.assert_allclose(again.as_matrix(), pose.as_matrix(), atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 1.0, 3.0])
def test_rotation_angle(angle):
    axis = jnp.array([2.0, -1.0, 2.0]) / 3.0
    assert float(transforms.rotation_angle(SO3.exp(angle * axis))) == pytest.approx(angle, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_align_points_recovers_the_pose(seed):
    source = 20.0 * jax.random.normal(jax.random.key(seed), (10, 3))
    pose = random_pose(seed + 10)
    found = transforms.align_points(source, transforms.apply(pose, source))
    np.testing.assert_allclose(found.as_matrix(), pose.as_matrix(), atol=1e-4)


def test_align_points_is_least_squares_under_noise():
    key = jax.random.key(0)
    source = 20.0 * jax.random.normal(key, (10, 3))
    noise = 3.0 * jax.random.normal(jax.random.key(1), (10, 3))
    weights = jax.random.uniform(jax.random.key(2), (10,)) + 0.1
    target = transforms.apply(random_pose(4), source) + noise

    def cost(pose):
        residual = transforms.apply(pose, source) - target
        return float(jnp.sum(weights[:, None] * residual**2))

    best = transforms.align_points(source, target, weights)
    for seed in range(20):
        change = 0.01 * jax.random.normal(jax.random.key(seed), (6,))
        assert cost(transforms.perturb(best, change[:3], 100.0 * change[3:])) > cost(best)


def test_align_points_of_a_mirror_image_is_still_a_rotation():
    corners = np.stack(np.meshgrid([-10.0, 10.0], [-5.0, 5.0], [-2.0, 2.0]), -1).reshape(-1, 3)
    source = jnp.asarray(corners, jnp.float32)
    found = transforms.align_points(source, source * jnp.array([1.0, 1.0, -1.0])[None])
    # The flattest direction is the cheapest to give up: everything else stays in place.
    np.testing.assert_allclose(found.rotation().as_matrix(), np.eye(3), atol=1e-5)


def test_align_points_ignores_weight_zero():
    source = 20.0 * jax.random.normal(jax.random.key(0), (6, 3))
    pose = random_pose(5)
    target = transforms.apply(pose, source).at[0].add(500.0)
    found = transforms.align_points(source, target, jnp.ones(6).at[0].set(0.0))
    np.testing.assert_allclose(found.as_matrix(), pose.as_matrix(), atol=1e-3)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-4, 3e-3, 4e-3, 0.1, 0.31, 0.32, 2.0])
def test_twist_is_the_matrix_exponential(angle):
    """In float32, also for angles that are small but not 0."""
    v, w = np.array([10.0, 300.0, -20.0]), angle * np.array([0.48, -0.6, 0.64])
    generator = np.zeros((4, 4))
    generator[:3, :3] = np.cross(w, np.eye(3), axisb=0, axisc=0)
    generator[:3, 3] = v
    found = transforms.from_twist(jnp.asarray(np.concatenate([v, w]), jnp.float32))
    np.testing.assert_allclose(found.as_matrix(), expm(generator), atol=1e-4)


@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (0.2, 0.24, 0.0), (0.5, 0.1, -0.3)])
def test_derivative_of_a_twist(x64, rotation):
    twist = jnp.array([10.0, 3.0, -2.0, *rotation])
    assert_gradient(lambda x: jnp.sum(transforms.from_twist(x).as_matrix()[:3] @ WEIGHTS), twist)


def test_gradient_of_the_angle_at_the_identity():
    angle = lambda w: transforms.rotation_angle(transforms.SO3.exp(w))  # noqa: E731
    np.testing.assert_array_equal(jax.grad(angle)(jnp.zeros(3)), 0.0)


def test_gradient_of_align_points_for_symmetric_points():
    """A cube has three equal singular values; compared with finite differences in float64."""
    with jax.enable_x64(True):
        cube = jnp.array([(x, y, z) for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)])
        probe = np.random.default_rng(0).normal(size=(8, 3))

        def value(source):
            return jnp.sum(probe * transforms.apply(transforms.align_points(source, cube), cube))

        gradient = jax.grad(value)(cube)
        step = 1e-5 * np.eye(24).reshape(24, 8, 3)
        expected = [(value(cube + h) - value(cube - h)) / 2e-5 for h in step]
        np.testing.assert_allclose(gradient.reshape(-1), expected, atol=1e-8)


def test_points_without_weight_may_be_nan():
    points = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    weights = jnp.ones(6).at[2].set(0.0)
    T = transforms.align_points(points.at[2].set(jnp.nan), points + 1.0, weights)
    np.testing.assert_allclose(T.translation(), 1.0, atol=1e-5)
