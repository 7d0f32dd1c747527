"""Draw the mean spine and random spines of a prior."""

import pathlib

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.transform import Rotation

from dartjax import ssm

_NUM_DRAWN = 12
_BACK = np.array([0.0, -1.0, 0.0])  # a direction of the plane that is seen from the side


def draw_spines(path: pathlib.Path, prior: ssm.SpinePrior) -> None:
    """Draw body centres from the front and from the patient's right: mean and random spines."""
    keys = jax.random.split(jax.random.key(0), _NUM_DRAWN)
    drawn = np.asarray(jax.vmap(lambda key: ssm.spine_sample(prior, key=key))(keys))
    figure, axes = plt.subplots(1, 2, figsize=(6.0, 7.0), layout="constrained")
    for values, style in (*((v, "C7-") for v in drawn), (prior.mean, "C0o-")):
        centers = _upright(np.asarray(jax.jit(ssm.spine_frames)(values).translation()))
        for axis, across in zip(axes, (0, 1), strict=True):
            axis.plot(centers[:, across], centers[:, 2], style, alpha=0.6, markersize=4)
    for axis, label in zip(axes, ("right, mm", "anterior, mm"), strict=True):
        axis.set_aspect("equal")
        axis.set_xlabel(label)
    axes[0].set_ylabel("superior, mm")
    figure.suptitle("Mean spine (blue) and random spines, T1 to L6")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _upright(centers: np.ndarray) -> np.ndarray:
    """Turn body centres so that the line from L5 to T1 is vertical, with L5 at the origin."""
    last = ssm.SPINE_LEVELS.index("L5")
    up = (centers[0] - centers[last]) / np.linalg.norm(centers[0] - centers[last])
    axes = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    turn = Rotation.align_vectors(axes, [up, np.cross(up, _BACK)])[0]
    return turn.apply(centers - centers[last])
