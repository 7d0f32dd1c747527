"""Order of the vertebrae of a scene, and the poses that the others suggest."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, registration, ssm, transforms

LEVELS = ("T8", "T9", "T10", "T12", "L1")


@pytest.fixture(scope="module")
def prior():
    return data.load_spine_prior()


@pytest.fixture(scope="module")
def order(prior):
    return registration.order_of(LEVELS, prior)


@pytest.fixture(scope="module")
def mean_spine(prior, order):
    """The poses of the mean spine, moved somewhere in the world."""
    frames, in_vertebra = (
        jax.tree.map(lambda leaf: leaf[order.place], each)
        for each in (ssm.spine_frames(prior.mean), prior.T_vertebra_frame)
    )
    world = transforms.SE3.from_rotation_and_translation(
        transforms.SO3.exp(jnp.array([0.3, -0.2, 0.4])), jnp.array([20.0, -30.0, 400.0])
    )
    return jax.vmap(lambda a, b: world @ a @ b.inverse())(frames, in_vertebra)


def away(found, poses):
    shift = jnp.linalg.norm(found.pose.translation() - poses.translation(), axis=1)
    turn = jax.vmap(lambda a, b: transforms.rotation_angle(a.inverse() @ b))(
        found.pose.rotation(), poses.rotation()
    )
    return np.asarray(shift), np.degrees(np.asarray(turn))


def test_every_vertebra_of_the_mean_spine_is_expected_where_it_is(order, mean_spine):
    found = registration.expected_poses(order, mean_spine)
    assert found.known.all()
    shift, turn = away(found, mean_spine)
    assert shift.max() < 0.02 and turn.max() < 0.02
    sigma = np.asarray(found.sigma)
    assert (sigma[:, :3] > 0.02).all() and (sigma[:, 3:] > 0.5).all()
    # T9 is between two neighbours, L1 has one: more is known of T9.
    assert (sigma[1, 3:] < sigma[4, 3:]).all()


def test_only_vertebrae_that_are_present_count(order, mean_spine):
    """T9 and T10 are wrong: one is not present, the other misleads all but itself."""
    moved = mean_spine.wxyz_xyz.at[1, 4:].add(40.0).at[2, 4].add(8.0)
    moved = transforms.SE3(moved)
    without = dataclasses.replace(order, present=jnp.array([True, False, True, True, True]))
    shift, _ = away(registration.expected_poses(without, moved), mean_spine)
    assert 0.2 < shift[0] < 12.0 and shift[2] < 0.02  # T10 itself is expected from the others
    nan = transforms.SE3(moved.wxyz_xyz.at[1].set(jnp.nan))
    again, _ = away(registration.expected_poses(without, nan), mean_spine)
    np.testing.assert_allclose(again, shift, atol=1e-4)


def test_one_vertebra_is_known_to_all_but_itself(order, mean_spine):
    one = dataclasses.replace(order, present=jnp.array([False, False, True, False, False]))
    found = registration.expected_poses(one, mean_spine)
    np.testing.assert_array_equal(found.known, [True, True, False, True, True])
    assert np.isfinite(jax.tree.leaves(found.pose)[0][np.asarray(found.known)]).all()
    sigma = np.asarray(found.sigma)[:, 3:].max(1)
    assert sigma[4] > sigma[1]  # L1 is farther from T10 than T9


def test_a_thirteenth_thoracic_vertebra_moves_the_others_up():
    levels = ("T11", "T12", "T13", "L1")
    places = dict(zip(levels, ssm.spine_places(levels), strict=True))
    usual = dict(zip(ssm.SPINE_LEVELS, range(len(ssm.SPINE_LEVELS)), strict=True))
    assert places == {
        "T11": usual["T10"],
        "T12": usual["T11"],
        "T13": usual["T12"],
        "L1": usual["L1"],
    }
    assert ssm.spine_places(("T1", "T13"))[0] == -1
    np.testing.assert_array_equal(ssm.spine_places(("T1", "L6")), [0, len(ssm.SPINE_LEVELS) - 1])


def test_a_vertebra_without_a_place_has_no_expected_pose(order, mean_spine):
    none = dataclasses.replace(order, place=order.place.at[0].set(-1))
    found = registration.expected_poses(none, mean_spine)
    np.testing.assert_array_equal(found.known, [False, True, True, True, True])
    shift, _ = away(found, mean_spine)
    assert shift[1:].max() < 0.02
