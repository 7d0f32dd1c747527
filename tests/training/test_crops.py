"""Training crops: batches depend on the step; invalid files have a clear message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, simulation, ssm, transforms
from dartjax.data import DataError
from dartjax.image import Radiograph
from dartjax.observations import Detection
from dartjax.pipeline._starts import detected_centers, detected_observations
from dartjax.registration import stack
from dartjax.training import Crops
from dartjax.training import _crops as learning_data
from dartjax.training._clutter import with_clutter
from dartjax.training._crops import NUM_VIEWS, crop_sampler
from tests.pipeline.vertebrae import vertebra
from tests.registration import scenes


def crops(num=3, seed=0):
    rng = np.random.default_rng(seed)
    view = camera.from_carm(transforms.carm_rotation(0.3, 0.1), jax.numpy.array([1.0, 2.0, 3.0]))

    def repeated(leaf):
        return np.broadcast_to(np.asarray(leaf), (num, NUM_VIEWS, *np.shape(leaf))).copy()

    return Crops(
        subject=np.array([f"synth{seed:04d}"] * num),
        level=np.arange(num),
        images=rng.uniform(size=(num, NUM_VIEWS, 16, 16)).astype(np.float16),
        masks=rng.integers(0, 2, (num, NUM_VIEWS, 16, 16)).astype(np.uint8),
        camera_from_world=repeated(view.camera_from_world.parameters()),
        focal_length=repeated(view.focal_length),
        principal_point=repeated(view.principal_point),
        sdd=repeated(view.sdd),
        vertices=rng.normal(size=(num, 20, 3)).astype(np.float32),
        pose=rng.normal(size=(num, 7)).astype(np.float32),
        coefficients=rng.normal(size=(num, 15)).astype(np.float32),
    )


def saved(path, content):
    np.savez_compressed(path, **content._asdict())
    return path


def test_a_batch_depends_on_step_and_seed():
    pytest.importorskip("grain")
    draw = crop_sampler(40, 3, 16, seed=5)
    chosen, views = draw(7)
    np.testing.assert_array_equal(chosen, crop_sampler(40, 3, 16, seed=5)(7)[0])
    assert views.shape == (16, 3) and chosen.max() < 40
    assert all(len(set(row)) == 3 for row in views.tolist())
    others = [draw(8)[0], crop_sampler(40, 3, 16, seed=6)(7)[0]]
    assert not any(np.array_equal(chosen, other) for other in others)
    drawn = np.concatenate([draw(step)[0] for step in range(10)]).reshape(4, 40)
    for epoch in drawn:
        assert set(epoch.tolist()) == set(range(40))
    assert not np.array_equal(drawn[0], drawn[1])


def test_subjects_are_joined_and_cameras_come_back(tmp_path):
    files = [saved(tmp_path / f"{i}.npz", crops(2 + i, i)) for i in range(2)]
    both = learning_data.load_crops(files)
    assert both.subject.tolist() == ["synth0000"] * 2 + ["synth0001"] * 3
    rows, views = np.array([[0, 4]]).T, np.array([[0, 1], [2, 3]])
    view = learning_data.camera_of(both, rows, views)
    assert view.focal_length.shape == (2, 2, 2) and view.image_size == (16, 16)
    one = jax.tree.map(lambda leaf: leaf[1, 0], view)
    expected = camera.from_carm(
        transforms.carm_rotation(0.3, 0.1), jax.numpy.array([1.0, 2.0, 3.0])
    )
    np.testing.assert_allclose(one.source, expected.source, atol=1e-3)


def test_crops_are_fitted_by_the_given_models():
    model, true = scenes.model(), scenes.TRUE_COEFFICIENTS
    surface = np.asarray(ssm.posed(model, scenes.TRUE_POSE, true), np.float32)
    other = crops(2)._replace(vertices=np.stack([surface, surface + 5.0]), level=np.array([0, 1]))
    found = learning_data.with_best_fits(other, stack([model, model]))
    for i in range(2):
        pose = transforms.SE3(jax.numpy.asarray(found.pose[i]))
        fitted = ssm.posed(model, pose, jax.numpy.asarray(found.coefficients[i]))
        assert np.abs(np.asarray(fitted) - other.vertices[i]).mean() < 0.05
    np.testing.assert_allclose(found.coefficients[0], true, atol=0.05)
    assert not np.allclose(found.coefficients, other.coefficients)


def test_files_without_crops_are_rejected(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(DataError, match=r"a\.npz holds no crops, or is damaged"):
        learning_data.load_crops([tmp_path / "a.npz"])
    np.savez(tmp_path / "b.npz", images=np.zeros(3))
    with pytest.raises(DataError, match=r"b\.npz holds no crops"):
        learning_data.load_crops([tmp_path / "b.npz"])


@pytest.mark.parametrize(
    ("wanted", "validation", "message"),
    [
        ([], [], "name subjects for validation"),
        (["synth0007"], ["synth0001"], "has no synth0001, synth0007"),
        (["a"], ["a"], "a: both in training and validation"),
    ],
)
def test_subjects_that_cannot_be_used_are_rejected(
    wanted, validation, message, monkeypatch, tmp_path
):
    known = [type("Subject", (), {"id": "a"})()]
    monkeypatch.setattr(learning_data.data, "find_subjects", lambda cohort: known)
    with pytest.raises(DataError, match=message):
        learning_data.cohort_crops("COHORT", str(tmp_path), wanted, validation, 0)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.57])
def test_crops_are_centred_as_in_use(angle, monkeypatch):
    monkeypatch.setattr(learning_data, "disturbed_mask", lambda mask, *_: mask)
    monkeypatch.setattr(learning_data, "_DEPTH_ERROR_MM", 0.0)
    truth = vertebra("T9")
    place = truth.pose.translation()
    view = camera.from_carm(
        transforms.carm_rotation(angle, 0.1),
        place + 15.0,
        pixel_spacing=0.6,
        image_size=(700, 700),
    )
    crop, mask = learning_data._crop(truth, view, np.random.default_rng(0))
    window = camera.region_around(view, place, width_mm=137.5, num_pixels=160)
    (seen,) = simulation.true_masks(truth, [window])
    found = Detection(
        np.zeros((1, 10, 2)),
        np.full((1, 10), np.inf),
        (Radiograph(jnp.asarray(seen, jnp.float32), window),),
    )
    centers = detected_centers(found, [view])
    image = Radiograph(jnp.zeros((700, 700)), view)
    in_use = detected_observations(found, [image], centers, np.asarray(place, float))
    own = jax.tree.map(lambda leaf: leaf[0], in_use.cameras)
    np.testing.assert_allclose(crop.focal_length, own.focal_length, rtol=1e-3)
    np.testing.assert_allclose(crop.principal_point, own.principal_point, atol=0.7)
    rows, columns = np.nonzero(mask)
    np.testing.assert_allclose([rows.mean(), columns.mean()], 63.5, atol=1.0)
    body = np.asarray(camera.project(crop, place[None])[0])
    assert np.linalg.norm(body - 64.0) > 3.0  # the centroid of a mask is not that of the body


def test_clutter_adds_other_images_to_half_of_a_batch():
    images = jnp.asarray(np.random.default_rng(0).uniform(1.0, 3.0, (400, 4, 4)), jnp.float32)
    seen = with_clutter(images, key=jax.random.key(3))
    added = np.asarray(seen - images)
    changed = np.abs(added).max((1, 2)) > 0.0
    assert 0.4 < changed.mean() < 0.6
    assert added.min() >= 0.0 and added.max() <= 0.8 * 2.0
    values = np.sort(
        np.asarray(images - images.min((1, 2), keepdims=True)).reshape(400, -1), axis=1
    )
    for i in np.flatnonzero(changed)[:20]:
        ratio = np.sort(added[i].ravel())[None, -1:] / values[:, -1:]
        same = np.abs(np.sort(added[i].ravel())[None] / ratio - values).max(1) < 1e-3
        assert same.sum() == 1 and not same[i]
