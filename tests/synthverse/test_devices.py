"""Arms and devices of synthetic patients."""

import dataclasses

import numpy as np
import pytest

from dartjax import synthverse
from dartjax.synthverse import _body, _devices, _shoulder, _subject
from dartjax.synthverse._grid import Grid


@pytest.fixture(scope="module")
def person():
    """Anatomy and body of a person."""
    streams = np.random.default_rng(5).spawn(6)
    anatomy = _subject._draw_anatomy(streams[:4], "parametric", synthverse.Options())
    z = [float(anatomy.frames[level][2, 3]) for level in ("S1", "C7")]
    trunk = _body.trunk_around(streams[4], anatomy, *z)
    return anatomy, _body.draw_body(streams[5], anatomy, trunk)


def grid_around(person, low, high, spacing=2.0):
    frames = person[0].frames
    z = frames[low][2, 3] - 20.0, frames[high][2, 3] + 20.0
    shape = (220, 160, int((z[1] - z[0]) / spacing))
    return Grid((-219.0, frames[low][1, 3] - 140.0, z[0]), shape, spacing)


NOTHING = _devices.Devices(0, False, False, False, (), ())


def metal(person, devices, low="L5", high="L1"):
    """Paint devices over a block of fat in the front of which is air; return where metal is."""
    anatomy, body = person
    grid = grid_around(person, low, high, 1.5)
    hu = np.full(grid.shape, -100.0, np.float32)
    front = anatomy.frames[low][1, 3] + 60.0
    hu[:, grid.axis(1) > front] = -1000.0
    _devices.paint_devices(
        hu, grid, body.trunk, devices, anatomy.shapes, anatomy.frames, np.random.default_rng(0)
    )
    places = np.argwhere(hu > 1000.0)
    return places * grid.spacing + np.array(grid.origin), front


def test_screws_go_through_both_pedicles_and_rods_join_them(person):
    anatomy, _ = person
    points, _ = metal(person, dataclasses.replace(NOTHING, screws=("L2", "L3", "L4")))
    for level in ("L2", "L3", "L4"):
        frame, bounds = anatomy.frames[level], anatomy.shapes[level].bounds
        local = (points - frame[:3, 3]) @ frame[:3, :3]
        for side in (1.0, -1.0):
            isthmus = np.array([side * bounds.pedicle[0], bounds.wall - 5.0, 0.35 * bounds.upper])
            assert np.linalg.norm(local - isthmus, axis=1).min() < 4.0
        canal = np.array([0.0, bounds.wall - 8.0, 0.0])
        assert np.linalg.norm(local - canal, axis=1).min() > 4.0
    middle = anatomy.frames["L3"][:3, 3]
    between = np.abs(points[:, 2] - 0.5 * (middle[2] + anatomy.frames["L2"][2, 3])) < 2.0
    assert (points[between, 0] > middle[0]).any() and (points[between, 0] < middle[0]).any()


def test_electrodes_are_on_the_skin(person):
    points, front = metal(person, dataclasses.replace(NOTHING, electrodes=4), low="T12", high="T2")
    assert len(points) > 20
    assert (points[:, 1] > front - 4.0).all() and (points[:, 1] < front + 8.0).all()


def test_cement_stays_in_the_body(person):
    anatomy, _ = person
    points, _ = metal(person, dataclasses.replace(NOTHING, cement=("L3",)))
    frame, bounds = anatomy.frames["L3"], anatomy.shapes["L3"].bounds
    local = (points - frame[:3, 3]) @ frame[:3, :3]
    assert len(local) > 50
    assert (np.abs(local[:, 0]) < bounds.half_width).all()
    assert (local[:, 1] > bounds.wall - 2.0).all() and (local[:, 1] < bounds.front + 2.0).all()


@pytest.mark.parametrize(("arms", "down"), [("up", False), ("down", True)])
def test_arms_lie_beside_or_above_the_trunk(person, arms, down):
    trunk = person[1].trunk
    for side in (1.0, -1.0):
        shoulder, elbow, wrist = _shoulder.arm_joints(trunk, side, arms)
        assert shoulder[0] * side > 100.0
        assert (elbow[2] < shoulder[2]) == down and (wrist[2] < elbow[2]) == down
    grid = grid_around(person, "T12", "T1")
    hu = np.full(grid.shape, -1000.0, np.float32)
    tissues = {"air": -1000.0, "skin": 20.0, "fat": -100.0, "muscle": 55.0}
    _shoulder.paint_arms(hu, grid, trunk, arms, tissues)
    bone = np.full(grid.shape, 20.0, np.float32)
    _shoulder.add_shoulders(bone, grid, trunk, arms)
    k = int(np.argmin(np.abs(grid.axis(2) - trunk.level_z["T9"])))
    x = grid.axis(0)
    for side in (x > 120.0, x < -120.0):
        assert (hu[side][:, :, k] > 0.0).any() == down
        assert (bone[side][:, :, k] < 0.0).any() == down
    np.testing.assert_array_equal(hu > -900.0, (hu > -900.0)[::-1])


def test_the_devices_of_a_cohort_are_as_frequent_as_stated():
    drawn = [_devices.draw_devices(np.random.default_rng(i), 80.0, ("L1",)) for i in range(600)]
    assert 0.33 < np.mean([d.electrodes > 0 for d in drawn]) < 0.47
    assert 0.05 < np.mean([bool(d.screws) for d in drawn]) < 0.12
    assert all(len(d.screws) in (0, 2, 3, 4) for d in drawn)
    young = [_devices.draw_devices(np.random.default_rng(i), 30.0, ()) for i in range(200)]
    assert not any(d.pacemaker or d.sternal_wires or d.cement for d in young)
