"""Detections of a known vertebra: crops follow them, starts are made of them, gaps are flagged."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, metrics, ssm, transforms
from dartjax.image import Radiograph, Volume
from dartjax.mesh import TriangleMesh
from dartjax.pipeline import _starts as detections
from dartjax.pipeline import _task as grading
from dartjax.registration import RUNGS, observe
from dartjax.registration import _presets as scene_presets
from dartjax.registration import _spine as spine
from dartjax.simulation import Detector
from dartjax.simulation import _carm as scene_carm
from dartjax.simulation import _detections as detections_detections
from dartjax.simulation import _ground_truth as scene

SURE = Detector(
    landmark_mm=0.3,
    miss=0.0,
    gross=0.0,
    exchanged=0.0,
    mask_dice=0.97,
    mask_dice_spread=0.0,
    mask_miss=0.0,
)
CENTER = np.array([10.0, -20.0, 150.0])
MODELS = {level: data.load_shape_model(level) for level in ("T8", "T9", "T10")}


def vertebra(level="T9", up_mm=0.0):
    """A true vertebra of the mean shape, and nothing else."""
    model = MODELS[level]
    turn = transforms.SO3.exp(jnp.array([0.15, 0.0, 0.1]))
    place = jnp.asarray(CENTER, jnp.float32) + turn.apply(jnp.array([0.0, 0.0, up_mm]))
    pose = transforms.SE3.from_rotation_and_translation(turn, place)
    shape = ssm.posed(model, pose, jnp.zeros(model.num_modes))
    surface = TriangleMesh(shape, model.faces)
    solid = metrics.solid_of(surface)
    affine = np.eye(4)
    affine[:3, 3] = solid.origin
    inside = Volume(jnp.asarray(solid.occupancy, jnp.float32), jnp.asarray(affine, jnp.float32))
    return scene.TrueVertebra(
        level=level,
        model=model,
        surface=surface,
        solid=solid,
        field=cast(Any, None),
        pose=pose,
        dense=shape,
        landmarks=ssm.landmarks(model, shape),
        paths=ssm.paths(model, shape),
        oracle=cast(Any, None),
        occupancy=inside,
        bone=dataclasses.replace(inside, values=0.03 * inside.values),
    )


@pytest.fixture(scope="module")
def truth():
    return vertebra()


@pytest.fixture(scope="module")
def radiographs():
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


@pytest.fixture(scope="module")
def sure(truth, radiographs):
    return detections_detections.detect(truth, radiographs, SURE, np.random.default_rng(0))


def unmasked(detection):
    empty = [Radiograph(jnp.zeros_like(m.image), m.camera) for m in detection.masks]
    return dataclasses.replace(detection, masks=tuple(empty))


def unmarked(detection, keep=0):
    seen = np.arange(10)[None].repeat(2, 0) < keep
    return dataclasses.replace(detection, sigma=np.where(seen, detection.sigma, np.inf))


def seen_of(detection, radiographs, place=CENTER):
    views = [r.camera for r in radiographs]
    centers = detections.detected_centers(detection, views)
    return detections.observations(detection, radiographs, centers, place)


def centroid_px(mask):
    rows, columns = np.nonzero(np.asarray(mask) > 0.5)
    return np.array([columns.mean(), rows.mean()]) + 0.5


def view_of(seen, k):
    return jax.tree.map(lambda leaf: leaf[k], seen.cameras)


def test_isolated_x_rays_show_this_bone_alone(truth, radiographs):
    crops = [
        camera.region_around(
            r.camera, jnp.asarray(CENTER, jnp.float32), width_mm=110.0, num_pixels=128
        )
        for r in radiographs
    ]
    told = scene.isolated(truth, observe(radiographs, crops))
    images, masks = np.asarray(told.images), scene.true_masks(truth, crops)
    assert images.shape == (2, 128, 128) and masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(images > 0.03 * 0.5, masks)
    # Its volume: attenuation x length x area of a pixel at the vertebra, summed up.
    depth = np.array([float(camera.depth(c, truth.surface.vertices).mean()) for c in crops])
    focal = np.array([float(c.focal_length[0]) for c in crops])
    volume = images.sum(axis=(1, 2)) / 0.03 * (depth / focal) ** 2
    expected = np.asarray(truth.occupancy.values).sum()
    np.testing.assert_allclose(volume, expected, rtol=0.03)


def test_crops_are_centred_on_the_masks(sure, truth, radiographs):
    seen = seen_of(sure, radiographs)
    for k in range(2):
        assert np.abs(centroid_px(seen.masks[k]) - scene_presets.CROP_PIXELS / 2).max() < 1.5
        true_px = camera.project(view_of(seen, k), truth.landmarks)
        assert np.linalg.norm(np.asarray(seen.landmarks[k] - true_px), axis=1).max() < 2.0
        true_mask = scene.true_masks(truth, [view_of(seen, k)])[0]
        overlap = 2.0 * (true_mask * np.asarray(seen.masks[k])).sum()
        assert overlap / (true_mask.sum() + np.asarray(seen.masks[k]).sum()) > 0.93


def test_crops_follow_a_wrong_detection_and_not_the_truth(sure, truth, radiographs):
    wrong = []
    for mask in sure.masks:
        moved = mask.camera.principal_point - jnp.array([40.0, 0.0])
        wrong.append(
            Radiograph(mask.image, dataclasses.replace(mask.camera, principal_point=moved))
        )
    right = seen_of(sure, radiographs)
    seen = seen_of(dataclasses.replace(sure, masks=tuple(wrong)), radiographs)
    for k in range(2):
        assert np.abs(centroid_px(seen.masks[k]) - scene_presets.CROP_PIXELS / 2).max() < 1.5
        apart = camera.project(view_of(seen, k), truth.landmarks) - camera.project(
            view_of(right, k), truth.landmarks
        )
        assert np.abs(np.asarray(apart) - np.array([-40.0, 0.0])).max() < 2.0


def test_without_a_mask_the_landmarks_centre_the_crop(sure, radiographs):
    seen = seen_of(unmasked(sure), radiographs)
    middle = np.asarray(seen.landmarks).mean(1)
    assert np.abs(middle - scene_presets.CROP_PIXELS / 2).max() < 0.1
    assert not np.asarray(seen.masks).any()


def test_with_nothing_seen_the_expected_place_centres_the_crop(sure, radiographs):
    nothing = unmarked(unmasked(sure))
    place = CENTER + np.array([12.0, 0.0, -9.0])
    seen = seen_of(nothing, radiographs, place)
    for k in range(2):
        shown = camera.project(view_of(seen, k), jnp.asarray(place, jnp.float32)[None])[0]
        assert np.abs(np.asarray(shown) - scene_presets.CROP_PIXELS / 2).max() < 0.1


def test_nothing_is_seen_outside_a_radiograph(truth, radiographs):
    aside = camera.crop(radiographs[0].camera, jnp.array([0.0, -500.0]), (384, 384))
    blind = Radiograph(jnp.ones((384, 384)), aside)
    found = detections_detections.detect(
        truth, [blind, radiographs[1]], SURE, np.random.default_rng(0)
    )
    assert not np.isfinite(found.sigma[0]).any() and np.isfinite(found.sigma[1]).all()
    assert not np.asarray(found.masks[0].image).any() and np.asarray(found.masks[1].image).any()
    centers = detections.detected_centers(found, [aside, radiographs[1].camera])
    assert np.isnan(centers[0]).all() and np.isfinite(centers[1]).all()


def test_a_vertebra_seen_by_no_pair_of_views_lies_on_the_line_of_the_others(radiographs):
    views = [r.camera for r in radiographs]
    levels, along = ["T8", "T9", "T10"], {"T8": 0.0, "T9": 25.0, "T10": 50.0}
    down = np.array([0.2, 0.1, -0.97])
    true = np.stack([CENTER + along[level] * down for level in levels])
    centers = np.stack(
        [np.asarray(camera.project(v, jnp.asarray(true, jnp.float32))) for v in views], axis=1
    )

    def found(*missing):
        gaps = centers.copy()
        gaps[list(missing)] = np.nan
        return detections.places(levels, gaps, views, along)

    assert np.abs(found() - true).max() < 0.05
    assert np.abs(found(1) - true).max() < 0.1  # between
    assert np.abs(found(2) - true).max() < 0.2  # beyond
    below = found(1, 2)[2] - true[0]
    assert np.abs(below - np.array([0.0, 0.0, -50.0])).max() < 0.1
    assert np.isfinite(found(0, 1, 2)).all()


def task_of(truth, detection, radiographs, pair=0):
    return grading.Task(
        subject="s",
        level=truth.level,
        pair=pair,
        model=truth.model,
        observations=seen_of(detection, radiographs, np.asarray(truth.pose.translation())),
        start=transforms.SE3.identity(),
        truth=truth,
        angle_deg=70.0,
    )


@pytest.mark.slow
def test_starts_with_the_help_of_neighbours_and_without_enough(truth, sure, radiographs):
    apart = -np.diff([spine.positions_mm(MODELS)[level] for level in ("T8", "T9", "T10")])
    above, below = vertebra("T8", -apart[0]), vertebra("T10", apart[1])
    seen = [
        (
            above,
            detections_detections.detect(above, radiographs, SURE, np.random.default_rng(1)),
            0,
        ),
        (truth, unmarked(sure), 0),  # masks alone, with neighbours
        (
            below,
            detections_detections.detect(below, radiographs, SURE, np.random.default_rng(2)),
            0,
        ),
        (truth, unmarked(sure), 1),  # masks alone
        (truth, unmarked(unmasked(sure), keep=1), 2),  # one landmark
    ]
    tasks, seconds = detections.initialised([task_of(t, d, radiographs, p) for t, d, p in seen])
    assert seconds > 0.0
    assert [task.rung for task in tasks] == [RUNGS[i] for i in (0, 3, 0, 3, 4)]
    assert [bool(task.refused) for task in tasks] == [False] * 3 + [True] * 2
    assert "how it is turned" in tasks[3].refused and "too little" in tasks[4].refused

    def turned(task):
        turn = task.truth.pose.rotation().inverse() @ task.start.rotation()
        return float(np.rad2deg(transforms.rotation_angle(turn)))

    assert max(turned(tasks[0]), turned(tasks[2])) < 3.0
    assert turned(tasks[1]) < 4.0 < turned(tasks[3])
    assert "abstained" in grading.status_text(tasks[4], grading.start_estimate(tasks[4]))


@pytest.mark.parametrize(
    ("gap", "reason"),
    [
        ({"masks": 0.0}, "no view has a mask"),
        ({"images": jnp.nan}, "not finite"),
        ({}, ""),
    ],
)
def test_evidence_that_cannot_be_trusted_gets_no_answer(gap, reason, truth, sure, radiographs):
    seen = seen_of(sure, radiographs)
    broken = {key: getattr(seen, key).at[:].set(value) for key, value in gap.items()}
    found = detections.why_refused(dataclasses.replace(seen, **broken), rung=0, helped=False)
    assert (reason in found) if reason else not found
    task = dataclasses.replace(task_of(truth, sure, radiographs), refused=found)
    estimate = grading.Estimate(truth.pose, jnp.zeros(truth.model.num_modes), 0, 0.9)
    graded = grading.grade(task, estimate)
    assert np.isnan(graded["dice"]) == bool(reason)
    assert graded.get("dice_reason", "") == found


def test_an_answer_that_is_not_finite_is_none(truth, sure, radiographs):
    lost = transforms.SE3.from_translation(jnp.full(3, jnp.nan))
    estimate = grading.Estimate(lost, jnp.zeros(truth.model.num_modes), grading.NOT_FINITE, np.nan)
    graded = grading.grade(task_of(truth, sure, radiographs), estimate)
    assert np.isnan(graded["dice"]) and "not finite" in graded["masd_mm_reason"]


def test_the_stress_detector_sees_less(truth, radiographs):
    counts = []
    for detector in detections_detections.DETECTORS.values():
        rng = np.random.default_rng(3)
        found = [detections_detections.detect(truth, radiographs, detector, rng) for _ in range(8)]
        counts.append(np.mean([np.isfinite(d.sigma).mean() for d in found]))
    assert counts[0] > counts[1]
    assert counts[0] == pytest.approx(0.63, abs=0.12)
    assert counts[1] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ((0.0,), [[0]]),
        ((300.0, 150.0, 0.0), [[0, 1, 2]]),  # as long as an image
        ((310.0, 200.0, 100.0, 0.0), [[0, 1], [2, 3]]),
    ],
)
def test_a_spine_longer_than_an_image_is_seen_in_parts(heights, expected):
    places = [transforms.SE3.from_translation(jnp.array([0.0, 0.0, z])) for z in heights]
    known = [SimpleNamespace(index=i, pose=pose) for i, pose in enumerate(places)]
    parts = scene_carm.seen_at_once(cast(Any, known))
    assert [[cast(Any, each).index for each in part] for part in parts] == expected
    assert scene_carm.CarmSetup().field_mm == pytest.approx(305.0, abs=1.0)
