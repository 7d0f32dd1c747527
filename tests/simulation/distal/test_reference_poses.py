"""The spread of guide poses that rods in the holes allow."""

import itertools

import numpy as np

from dartjax.simulation import reference_pose_spread
from dartjax.simulation.distal import _operation as operation

COUNT = 6


def test_the_rods_fit_in_every_pose():
    poses = operation._poses_with_rods(np.random.default_rng(0), COUNT)
    for pose, z in itertools.product(poses, (-6.0, 6.0)):
        for x in (0.0, -30.0):
            start, axis = pose[:3] @ [x, 0.0, 0.0, 1.0], pose[:3, 2]
            at = start + axis * (z - start[2]) / axis[2]
            assert np.hypot(at[0] - x, at[1]) <= 0.5 + 1e-5


def test_every_pair_of_poses_is_compared_on_both_sides_of_the_nail():
    """The axes of two poses are at most 1 mm apart at the nail's walls, 6 mm from its axis, so that
    they are at most 1.7 mm apart at 10 mm."""
    rows = reference_pose_spread(np.random.default_rng(0), COUNT)
    assert len(rows) == COUNT * (COUNT - 1) // 2
    for row in rows:
        assert 0.0 < row["angle_deg"] < np.degrees(2.0 * np.arctan(0.5 / 6.0))
        assert max(row["entry_mm"], row["exit_mm"]) < 10.0 / 6.0 + 0.1
