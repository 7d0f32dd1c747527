"""All networks for one vertebra train on crops; a stopped training has the same curve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, ssm, transforms
from dartjax.models import ISOLATION_PRESETS, LANDMARK_PRESETS, IsolationNet, LandmarkNet
from dartjax.pipeline import _networks as networks
from dartjax.registration import stack
from dartjax.render import SplatOptions, splat, two_compartment
from dartjax.training import Crops, Schedule
from dartjax.training import _isolation_task as isolation_task
from dartjax.training import _landmark_task as landmark_task
from dartjax.training import _run as training_run
from dartjax.training import _similarity_task as similarity_task
from dartjax.training._crops import NUM_VIEWS
from tests.registration import scenes

pytestmark = pytest.mark.slow
SIZE = 128
MODELS = stack([scenes.model()])


@pytest.fixture(scope="module")
def crops():
    """One vertebra alone, in eight views."""
    pose, coefficients = scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS
    vertices = ssm.posed(scenes.model(), pose, coefficients)
    render = jax.jit(lambda view: splat(vertices, scenes.model().faces, view, SplatOptions()))
    views = [
        camera.region_around(
            camera.from_carm(transforms.carm_rotation(angle, 0.1), pose.translation()),
            pose.translation(),
            width_mm=110.0,
            num_pixels=SIZE,
        )
        for angle in np.linspace(-1.5, 1.5, NUM_VIEWS)
    ]
    shown = [render(view) for view in views]
    view = jax.device_get(stack(views))
    one = Crops(
        subject=np.array("synth0000"),
        level=np.array(0),
        images=np.stack([np.asarray(two_compartment(x), np.float16) for x in shown]),
        masks=np.stack([np.asarray(x.silhouette > 0.5, np.uint8) for x in shown]),
        camera_from_world=view.camera_from_world.parameters(),
        focal_length=view.focal_length,
        principal_point=view.principal_point,
        sdd=view.sdd,
        vertices=np.asarray(vertices),
        pose=np.asarray(pose.parameters()),
        coefficients=np.asarray(coefficients),
    )
    return Crops(*(np.stack([leaf, leaf]) for leaf in one))


def isolation(crops):
    net = IsolationNet(ISOLATION_PRESETS["smoke"])
    parts = (
        isolation_task.isolation_training_loss(net, MODELS),
        isolation_task.isolation_batches(crops, 2, 0),
    )
    return networks.untrained_isolation(net, jax.random.key(0)), *parts


def similarity(crops):
    task = similarity_task.SimilarityTask("smoke", MODELS)
    parts = task.loss(1), similarity_task.similarity_batches(crops, 2, 2, 0)
    return networks.untrained_similarity(task.net, jax.random.key(0)), *parts


def landmarks(crops):
    net = LandmarkNet(LANDMARK_PRESETS["smoke"])
    known = landmark_task.landmark_crops(crops, MODELS)
    parts = (
        landmark_task.landmark_training_loss(net),
        landmark_task.landmark_batches(known, 2, 0),
    )
    return landmark_task.untrained_landmarks(net, jax.random.key(0)), *parts


def size_of(params):
    return {"score": float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))}


@pytest.mark.parametrize("network", [isolation, similarity, landmarks])
def test_a_training_that_was_stopped_has_the_same_curve(network, crops, tmp_path):
    params, loss, batch_of = network(crops)
    training = training_run.Training(loss, batch_of, size_of, Schedule(4), 0, 2, 9)

    def run(work, **limits):
        return training_run.train(params, training, tmp_path / work, lambda note: None, **limits)

    whole = run("whole")
    assert run("parts", minutes=0.0).steps_run == 1
    parts = run("parts")
    assert parts.steps_run == 3 and parts.curve == whole.curve
    assert all(np.isfinite(row["loss"]) for row in whole.curve)
    for leaf, other in zip(
        jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)


def test_landmark_crops_have_the_projected_vertebra_and_its_landmarks(crops):
    known = landmark_task.landmark_crops(crops, MODELS)
    assert known.landmarks.shape == (2, 10, 3)
    np.testing.assert_array_equal(known.silhouettes, crops.masks)
    place = np.arange(2)
    rows = landmark_task.landmark_rows(
        net := LandmarkNet(LANDMARK_PRESETS["smoke"]),
        landmark_task.untrained_landmarks(net, jax.random.key(0)),
        known,
    )
    assert {row["view"] for row in rows} == {0, 1, 2, 3} and len(rows) == 2 * 4 * 10
    assert known.batch(place, place).image.shape == (2, SIZE, SIZE)
