"""Vertebrae with ground truth, and their tasks."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from dartjax import camera, data, metrics, planning, ssm, transforms
from dartjax.image import Radiograph, Volume
from dartjax.mesh import TriangleMesh
from dartjax.pipeline import Task
from dartjax.registration import Reconstruction
from dartjax.simulation import Detector, _detections, _ground_truth
from tests.registration import scenes

SURE = Detector(
    landmark_mm=0.3,
    miss_rate=0.0,
    outlier_rate=0.0,
    swap_rate=0.0,
    mask_dice=0.97,
    mask_dice_spread=0.0,
    mask_miss_rate=0.0,
)
CENTER = np.array([10.0, -20.0, 150.0])
MODELS = {level: data.load_shape_model(level) for level in ("T8", "T9", "T10")}


@functools.cache
def vertebra(level="T9", up_mm=0.0):
    """Make the ground truth of a vertebra with the mean shape."""
    model = MODELS[level]
    turn = transforms.SO3.exp(jnp.array([0.15, 0.0, 0.1]))
    place = jnp.asarray(CENTER, jnp.float32) + turn.apply(jnp.array([0.0, 0.0, up_mm]))
    pose = transforms.SE3.from_rotation_and_translation(turn, place)
    shape = ssm.posed(model, pose, jnp.zeros(model.num_modes))
    surface = TriangleMesh(shape, model.faces)
    solid = metrics.solid_of(surface)
    affine = np.eye(4)
    affine[:3, 3] = solid.origin
    oracle = ssm.Registration(
        landmarks=ssm.landmarks(model, shape),
        pose=pose,
        mean_residual=0.0,
        coefficients=jnp.zeros(model.num_modes),
        vertices=shape,
        paths=ssm.paths(model, shape),
    )
    inside = Volume(jnp.asarray(solid.occupancy, jnp.float32), jnp.asarray(affine, jnp.float32))
    return _ground_truth.TrueVertebra(
        level=level,
        model=model,
        surface=surface,
        solid=solid,
        field=planning.distance_field_from_mesh(surface),
        pose=pose,
        dense=shape,
        landmarks=ssm.landmarks(model, shape),
        paths=ssm.paths(model, shape),
        oracle=oracle,
        occupancy=inside,
        bone=dataclasses.replace(inside, values=0.03 * inside.values),
    )


def radiographs():
    """Two empty views of the vertebra, 75 degrees apart."""
    views = [
        camera.from_carm(
            transforms.carm_rotation(angle, 0.1),
            jnp.asarray(CENTER + 5.0, jnp.float32),
            pixel_spacing=1.0,
            image_size=(384, 384),
        )
        for angle in (-0.4, 0.9)
    ]
    return [Radiograph(jnp.ones((384, 384)), view) for view in views]


def sure_detection(truth, radiographs):
    """Simulate a detection with almost no errors."""
    return _detections.detect(truth, radiographs, SURE, np.random.default_rng(0))


def unmasked(detection):
    empty = [Radiograph(jnp.zeros_like(m.image), m.camera) for m in detection.masks]
    return dataclasses.replace(detection, masks=tuple(empty))


def unmarked(detection, keep=0):
    seen = np.arange(10)[None].repeat(2, 0) < keep
    return dataclasses.replace(detection, sigma=np.where(seen, detection.sigma, np.inf))


def answer_of(task, status=0, coefficients=None):
    """Make the result of a perfect method for a task."""
    return Reconstruction(
        pose=task.truth.pose,
        coefficients=jnp.zeros(task.model.num_modes) if coefficients is None else coefficients,
        loss=jnp.zeros(()),
        history=jnp.zeros(1),
        mask_agreement=jnp.full(2, 0.9),
        status=jnp.asarray(status),
    )


def two_tasks():
    """Make the tasks of T9 in two pairs of views, the second without detections."""
    truth = vertebra()
    seen = scenes.observations(-30.0, 50.0)
    start = transforms.perturb(truth.pose, jnp.zeros(3), jnp.array([3.0, 0.0, 0.0]))
    first = Task("a", "T9", 0, truth.model, seen, start, truth, 80.0)
    second = Task("a", "T9", 1, truth.model, seen, start, truth, 70.0, abstention="too little")
    return [first, second]
