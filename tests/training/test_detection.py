"""Losses and examples of the detector at known values, and a network overfitted to eight images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, training
from dartjax.models import DETECTED_LEVELS, DETECTOR_PRESETS, VertebraDetector
from dartjax.training import DetectionBatch, DetectionTruth, Schedule

SIZE, CELLS, COUNT = 64, 56, 20
NET = VertebraDetector(DETECTOR_PRESETS["smoke"])


def truth_of(boxes, levels=None):
    """Vertebrae whose bodies are the middle half of their boxes, with full masks."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)

    def padded(values, fill=0.0):
        values = np.asarray(values)
        more = [(0, COUNT - count)] + [(0, 0)] * (values.ndim - 1)
        return jnp.asarray(np.pad(values, more, constant_values=fill))

    middle, half = 0.5 * (boxes[:, :2] + boxes[:, 2:]), 0.25 * (boxes[:, 2:] - boxes[:, :2])
    levels = np.arange(5, 5 + count) if levels is None else np.asarray(levels)
    return DetectionTruth(
        level=padded(levels.astype(np.int32), -1),
        box=padded(boxes),
        body_box=padded(np.concatenate([middle - half, middle + half], axis=1)),
        center=padded(middle),
        whole_box=padded(boxes),
        mask=padded(np.ones((count, CELLS, CELLS), np.float32)),
        sacrum=jnp.zeros(()),
    )


def test_the_target_is_one_at_every_centre_and_falls_around_it():
    truth = truth_of([[8, 8, 40, 24], [20, 30, 60, 60]])
    target = np.asarray(training.center_targets(truth, (16, 16), 4))
    assert target[4, 6] == 1.0 and target[11, 10] == 1.0
    assert 0.3 < target[4, 7] < 1.0 and target[0, 15] < 1e-3
    assert (target == 1.0).sum() == 2


def test_without_vertebrae_every_centre_is_a_mistake():
    truth = truth_of(np.zeros((0, 4)))
    assert not np.asarray(training.center_targets(truth, (16, 16), 4)).any()
    image = jnp.zeros((SIZE, SIZE, 3))
    params = training.untrained_detector(NET, jax.random.key(0))
    loss, terms = training.detection_loss(NET, params, image, truth, key=jax.random.key(1))
    assert np.isfinite(loss)
    assert terms["level"] == terms["bodies"] == terms["mask"] == terms["first_boxes"] == 0.0


def test_a_mask_is_sampled_in_other_boxes():
    mask = jnp.zeros((1, CELLS, CELLS)).at[0, :, CELLS // 2 :].set(1.0)  # its right half
    place = jnp.array([[10.0, 10.0, 30.0, 50.0]])
    same = np.asarray(training.mask_in_boxes(mask, place, place, 28))[0]
    assert same[:, :13].max() == 0.0 and same[:, 15:].min() == 1.0
    beyond = jnp.array([[20.0, 10.0, 40.0, 50.0]])  # its left half is the mask's right half
    moved = np.asarray(training.mask_in_boxes(mask, place, beyond, 28))[0]
    assert moved[2:-2, 1:13].min() == 1.0 and moved[:, 15:].max() == 0.0


def test_disturbed_boxes_still_overlap_their_vertebrae():
    truth = truth_of([[8, 8, 40, 24], [20, 30, 60, 60]])
    for seed in range(10):
        boxes, chosen = training.disturbed_boxes(truth, SIZE, key=jax.random.key(seed))
        true = np.asarray(truth.box)[:2]
        shared = training.match_boxes(np.asarray(boxes), np.ones(12), true).overlap
        assert set(np.asarray(chosen).tolist()) <= {0, 1}
        assert (shared > 0.5).all()


def example():
    """A radiograph of 96 x 96 px with one bright vertebra whose right half is masked."""
    box = np.array([24.0, 40.0, 56.0, 72.0])
    image = np.zeros((96, 96), np.float32)
    image[40:72, 24:56] = 3.0
    mask = np.zeros((COUNT, CELLS, CELLS), np.float32)
    mask[0, :, CELLS // 2 :] = 1.0

    def first(value, width):
        rows = np.zeros((COUNT, width), np.float32)
        rows[0] = value
        return jnp.asarray(rows)

    return DetectionBatch(
        image=jnp.asarray(image),
        open_field=jnp.array([0.0, 0.0, 96.0, 96.0]),
        level=jnp.full(COUNT, -1).at[0].set(4),
        box=first(box, 4),
        body_box=first(box, 4),
        center=first([40.0, 56.0], 2),
        exposed=jnp.zeros(COUNT).at[0].set(1.0),
        mask=jnp.asarray(mask),
        sacrum=jnp.zeros(()),
    )


def test_a_whole_view_scales_boxes_with_the_image():
    image, truth = training.whole_view(example(), 48)
    assert image.shape == (48, 48, 3)
    # The box is tight around the mask: the right half of the vertebra.
    np.testing.assert_allclose(truth.box[0], [20.0, 20.0, 28.0, 36.0], atol=0.2)
    np.testing.assert_allclose(truth.whole_box[0], [12.0, 20.0, 28.0, 36.0], atol=1e-4)
    np.testing.assert_allclose(truth.center[0], [20.0, 28.0], atol=1e-4)
    bright = np.asarray(image[..., 0]) > 0.5
    assert bright[21:35, 13:27].all() and not bright[:19].any() and not bright[:, 30:].any()


@pytest.mark.parametrize("seed", range(6))
def test_a_random_view_moves_mask_and_boxes_with_the_image(seed):
    """The masked half of the bright square is bright in the random view, and the box around it."""
    image, truth = training.random_view_of(example(), 64, key=jax.random.key(seed))
    if int(truth.level[0]) < 0:
        return
    u0, v0, u1, v1 = np.asarray(truth.box[0])
    w0, _, w1, _ = np.asarray(truth.whole_box[0])
    assert u1 - u0 < 0.62 * (w1 - w0)  # one half
    is_right_half = 0.5 * (u0 + u1) > 0.5 * (w0 + w1)
    mask = np.asarray(truth.mask[0])
    right = mask[:, CELLS // 2 :].mean() > mask[:, : CELLS // 2].mean()
    assert is_right_half == right
    inner = np.asarray(image[..., 0])[int(v0) + 3 : int(v1) - 2, int(u0) + 3 : int(u1) - 2]
    shown = np.asarray(image[..., 0]).any()  # some views have no smooth grey values
    if shown and inner.size:
        assert np.median(inner) > 0.5


def test_a_vertebra_that_is_mostly_outside_is_no_ground_truth():
    cut = example()
    narrow = DetectionBatch(**{**vars(cut), "open_field": jnp.array([0.0, 0.0, 44.0, 96.0])})
    _, truth = training.whole_view(narrow, 48)
    assert int(truth.level[0]) == -1
    wide = DetectionBatch(**{**vars(cut), "open_field": jnp.array([0.0, 0.0, 51.0, 96.0])})
    image, truth = training.whole_view(wide, 48)
    assert int(truth.level[0]) == 4
    # The square around the field is centred on it.
    np.testing.assert_allclose(truth.box[0, 2], 0.5 * (51.0 + 22.5), atol=0.6)
    exposed = np.asarray(image[..., 2])
    assert exposed[:, 13:36].all() and not exposed[:, 38:].any() and not exposed[:, :10].any()


def test_boxes_are_matched_by_score_then_overlap():
    true = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    found = np.array([[1.0, 0.0, 11.0, 10.0], [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]])
    matches = training.match_boxes(found, np.array([0.9, 0.8, 0.7]), true)
    assert matches.found.tolist() == [0] and matches.true.tolist() == [0]
    np.testing.assert_allclose(matches.overlap, [9.0 / 11.0], atol=1e-6)
    nothing = training.match_boxes(np.zeros((0, 4)), np.zeros(0), true)
    assert not len(nothing.found)


def test_a_record_becomes_an_example():
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 8:20, 4:16] = True
    masks[1, 0:2, 0:2] = True  # too small
    record = {
        "image": np.full((32, 32), 2.0, np.float32),
        "open_field": np.array([0.0, 0.0, 32.0, 32.0], np.float32),
        "labels": np.array([20, 21], np.uint8),
        "masks": masks,
        "body_boxes": np.array([[6, 9, 14, 18], [0, 0, 1, 1]], np.float32),
        "body_centers": np.array([[10, 13], [0, 0]], np.float32),
        "exposed_share": np.array([1.0, 1.0], np.float32),
    }
    made = training.example_of(record)
    assert made["level"][0] == DETECTED_LEVELS.index("L1") and (made["level"][1:] == -1).all()
    np.testing.assert_array_equal(made["box"][0], [4, 8, 16, 20])
    assert np.unpackbits(made["mask"][0]).all() and made["sacrum"] == 0.0
    np.testing.assert_allclose(data.decode_radiograph(made["image"]), 2.0, atol=1e-4)
    hidden = {**record, "exposed_share": np.array([0.2, 1.0], np.float32)}
    assert (training.example_of(hidden)["level"] == -1).all()


def test_the_sacrum_is_below_the_lowest_vertebra():
    centers = np.array([[16.0, 8.0], [16.0, 16.0]], np.float32)
    record = {
        "image": np.zeros((32, 32), np.float32),
        "open_field": np.array([0.0, 0.0, 32.0, 32.0], np.float32),
        "labels": np.array([23, 24], np.uint8),  # L4, L5
        "masks": np.zeros((2, 32, 32), bool),
        "body_boxes": np.zeros((2, 4), np.float32),
        "body_centers": centers,
        "exposed_share": np.ones(2, np.float32),
    }
    assert training.example_of(record)["sacrum"] == 1.0
    shut = {**record, "open_field": np.array([0.0, 0.0, 32.0, 24.0], np.float32)}
    assert training.example_of(shut)["sacrum"] == 0.0
    higher = {**record, "labels": np.array([22, 23], np.uint8)}
    assert training.example_of(higher)["sacrum"] == 0.0


def _squares(seed):
    """One bright square per image, of a level that its size tells."""
    rng = np.random.default_rng(seed)
    side = 12 + 6 * (seed % 3)
    u, v = rng.integers(4, SIZE - side - 4, 2)
    image = 0.05 * rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    image[v : v + side, u : u + side] += 1.0
    exposed = np.ones_like(image)
    channels = np.stack([image, image - image.mean(), exposed], axis=-1)
    return channels, truth_of([[u, v, u + side, v + side]], [5 + seed % 3])


@pytest.mark.slow
def test_the_detector_can_be_overfitted_to_eight_images():
    images, truths = zip(*(_squares(seed) for seed in range(8)), strict=True)
    batch = jnp.asarray(np.stack(images)), jax.tree.map(lambda *x: jnp.stack(x), *truths)

    def loss(params, batch, key):
        losses, terms = jax.vmap(
            lambda image, truth, k: training.detection_loss(NET, params, image, truth, key=k)
        )(*batch, jax.random.split(key, 8))
        return jnp.mean(losses), jax.tree.map(jnp.mean, terms)

    schedule = Schedule(600, 4e-3, warmup_steps=20)
    state = training.train_state(training.untrained_detector(NET, jax.random.key(0)), schedule)
    step = jax.jit(lambda s: training.train_step(s, batch, loss, schedule, key=jax.random.key(1)))
    for _ in range(600):
        state, _ = step(state)
    found = jax.jit(lambda p: jax.vmap(lambda image: NET.apply({"params": p}, image))(batch[0]))(
        state.params
    )
    scores = training.detection_summary(training.rows_of_batch(found, batch[1], 0.4))
    assert scores["precision"] == scores["recall"] == 1.0
    assert scores["mask_dice"] > 0.9 and scores["level_right"] == 1.0
    assert scores["center_error_px"] < 2.0
