"""`dartjax.reconstruct`: from X-rays to a spine, different views, and input errors."""

import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dartjax
from dartjax import data, metrics, pipeline, registration, transforms
from dartjax.data import DataError, InitialEstimate
from dartjax.image import Radiograph
from dartjax.pipeline import ReconstructOptions
from dartjax.registration import _batch
from dartjax.render import SplatOptions, splat, two_compartment
from tests.pipeline import vertebrae

PLACES = {"T8": 24.0, "T9": 0.0, "T10": -25.0}  # mm along the spine


@functools.cache
def truths():
    return {level: vertebrae.vertebra(level, up) for level, up in PLACES.items()}


@functools.cache
def xrays():
    """Simulate two X-rays of three vertebrae alone."""
    found = []
    for empty in vertebrae.radiographs():
        shown = [
            two_compartment(splat(t.dense, t.model.faces, empty.camera, SplatOptions(window=15)))
            for t in truths().values()
        ]
        found.append(Radiograph(sum(shown), empty.camera))
    return found


@functools.cache
def detections():
    return {level: vertebrae.sure_detection(truth, xrays()) for level, truth in truths().items()}


def starts(shift_mm=(3.0, -2.0, 2.0)):
    """Make initial poses near the true ones."""
    return {
        level: transforms.perturb(truth.pose, jnp.array([0.05, 0.0, 0.05]), jnp.array(shift_mm))
        for level, truth in truths().items()
    }


def masd(vertebra):
    truth = truths()[vertebra.level]
    return metrics.reconstruction_metrics(vertebra.surface, truth.surface, truth.solid)["masd_mm"]


def tasks_of(**given):
    views = given.pop("radiographs", xrays())
    return pipeline.spine_tasks(
        views,
        given.pop("levels", None),
        given.pop("observations", None),
        given.pop("starts", None),
        ReconstructOptions(**given),
    )


# What is to be done


def test_tasks_stand_from_head_to_foot_whatever_the_order():
    backwards = dict(reversed(starts().items()))
    tasks, warnings = tasks_of(starts=backwards)
    assert [task.level for task in tasks] == ["T8", "T9", "T10"] and warnings == []
    assert all(task.tier == pipeline.GIVEN for task in tasks)
    np.testing.assert_array_equal(tasks[1].start.parameters(), backwards["T9"].parameters())
    tasks, _ = tasks_of(starts=backwards, levels=["T10", "T8"])
    assert [task.level for task in tasks] == ["T8", "T10"]


def test_a_given_start_replaces_that_of_detections():
    tasks, _ = tasks_of(observations=detections(), starts={"T9": starts()["T9"]})
    assert [task.tier == pipeline.GIVEN for task in tasks] == [False, True, False]
    assert tasks[1].mask_in_every_view  # its observations are kept
    np.testing.assert_array_equal(tasks[1].start.parameters(), starts()["T9"].parameters())


@pytest.mark.slow
def test_detections_and_crops_of_them_give_the_same_start():
    tasks, _ = tasks_of(observations=detections())
    crops = {task.level: task.observations for task in tasks}
    again, _ = tasks_of(observations=crops)
    for seen in (tasks, again):
        started, _ = pipeline.start_tasks(seen)
        for task in started:
            offset = task.start.translation() - truths()[task.level].pose.translation()
            assert float(jnp.linalg.norm(offset)) < 2.0 and task.abstention == ""


def test_images_of_unequal_size_are_accepted():
    first, second = xrays()
    cut = dataclasses.replace(second.camera, image_size=(350, 384))
    smaller = [first, Radiograph(second.image[:350], cut)]
    whole, _ = tasks_of(observations=detections())
    tasks, _ = tasks_of(radiographs=smaller, observations=detections())
    np.testing.assert_allclose(
        tasks[1].observations.images, whole[1].observations.images, atol=1e-5
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no observations and no starts are given: give observations"),
        ({"starts": starts, "levels": ("L1",)}, "do not contain L1, only T8, T9, T10"),
        ({"starts": starts, "levels": ()}, "levels is empty"),
        ({"starts": lambda: {"T99": starts()["T9"]}}, "T99"),
        ({"starts": lambda: {"C3": starts()["T9"]}}, "C3"),
        ({"starts": starts, "radiographs": list}, "at least one camera"),
        ({"starts": lambda: starts((0.0, 0.0, 900.0))}, "T8: view 1: .* outside"),
        ({"starts": starts, "exclude": ("lidc0001", "nobody-else", "ctacardio")}, "ctacardio"),
    ],
)
def test_an_input_error_has_one_message(given, message):
    given = {key: value() if callable(value) else value for key, value in given.items()}
    with pytest.raises(DataError, match=message):
        tasks_of(**given)


def test_invalid_radiographs_have_one_message():
    first, second = xrays()
    dead = Radiograph(second.image.at[3, 4].set(jnp.nan), second.camera)
    with pytest.raises(DataError, match="radiograph 2: 1 pixels are NaN"):
        tasks_of(radiographs=[first, dead], starts=starts())
    cut = Radiograph(second.image[:100], second.camera)
    with pytest.raises(DataError, match=r"radiograph 2 is \(100, 384\)"):
        tasks_of(radiographs=[first, cut], starts=starts())
    with pytest.raises(DataError, match="T8: the detection has 2 views"):
        tasks_of(radiographs=[first], observations=detections())
    tasks, _ = tasks_of(observations=detections())
    one_view = {"T9": jax.tree.map(lambda leaf: leaf[:1], tasks[1].observations)}
    with pytest.raises(DataError, match="T9: observations must be crops of shape"):
        tasks_of(observations=one_view)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"recipe": "magic"}, "magic"), ({"restarts": 3}, "fits all vertebrae jointly")],
)
def test_an_unknown_recipe_has_one_message(options, message):
    tasks, _ = tasks_of(starts=starts())
    with pytest.raises(DataError, match=message):
        pipeline.fit_spine(tasks, ReconstructOptions(**options))


def test_a_network_trained_on_an_excluded_subject_is_rejected():
    tasks, _ = tasks_of(starts=starts())
    person = data.read_card(data.NETWORKS / "similarity")["subjects_included"][0]
    with pytest.raises(DataError, match=f"trained on {person}"):
        pipeline.fit_spine(tasks, ReconstructOptions(recipe="ours", exclude=(person,)))


# The whole way


@pytest.mark.slow
def test_three_vertebrae_from_detections():
    spine = dartjax.reconstruct(xrays(), observations=detections())
    assert [vertebra.level for vertebra in spine] == ["T8", "T9", "T10"]
    for vertebra in spine:
        assert vertebra.succeeded and masd(vertebra) < 1.0
        assert 0.0 <= vertebra.p_failure <= 1.0 and vertebra.tier == registration.TIERS[0]
        spread = np.linalg.eigvalsh(np.asarray(vertebra.covariance))
        assert spread.shape == (21,) and (spread > -1e-6).all()


@pytest.mark.slow
def test_results_are_the_same_in_a_thread_and_with_double_precision():
    given = starts()
    first = dartjax.reconstruct(xrays(), starts=given)
    assert all(masd(vertebra) < 1.5 and vertebra.p_failure is None for vertebra in first)
    misses = _batch._program.cache_info().misses
    answers = [dartjax.reconstruct(xrays(), starts=given)]
    assert _batch._program.cache_info().misses == misses  # nothing is compiled again
    thread = threading.Thread(
        target=lambda: answers.append(dartjax.reconstruct(xrays(), starts=given))
    )
    thread.start()
    thread.join()
    jax.config.update("jax_enable_x64", True)
    try:
        double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (xrays(), given))
        answers.append(dartjax.reconstruct(double[0], starts=double[1]))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert len(answers) == 3
    for answer in answers:
        for vertebra, before in zip(answer, first, strict=True):
            assert vertebra.surface.vertices.dtype == jnp.float32
            np.testing.assert_array_equal(vertebra.surface.vertices, before.surface.vertices)


@pytest.mark.slow
def test_one_view_gives_a_warning_and_a_flag():
    spine = dartjax.reconstruct(xrays()[:1], starts=starts())
    assert "only one view" in spine.warnings[0]
    assert all("one view" in vertebra.status and not vertebra.succeeded for vertebra in spine)


@pytest.mark.slow
def test_a_spine_without_usable_vertebrae_is_saved(tmp_path):
    blind = {
        level: vertebrae.unmasked(vertebrae.unmarked(each)) for level, each in detections().items()
    }
    spine = dartjax.reconstruct(xrays(), observations=blind)
    assert all(v.abstained and v.paths is None and v.p_failure is None for v in spine)
    spine.save(tmp_path)
    assert list((tmp_path / "meshes").iterdir()) == []


@pytest.mark.slow
def test_an_estimate_by_landmarks_and_the_recipe_alone():
    truth = truths()["T9"]
    names = ("superior_endplate_center", "spinous_tip", "left_waist", "right_waist")
    points = {name: np.asarray(truth.landmarks[_index(name)]) + 1.0 for name in names}
    given = {"T9": InitialEstimate(None, np.eye(3), points)}
    options = ReconstructOptions(recipe="alone", restarts=2)
    spine = dartjax.reconstruct(xrays(), starts=given, options=options)
    assert masd(spine["T9"]) < 1.5 and spine["T9"].covariance is not None


def _index(name):
    return dartjax.observations.LANDMARK_NAMES.index(name)
