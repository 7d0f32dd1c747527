"""Patient of the robot studies: read from a run, built from mean shapes, prone position."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import simulation
from dartjax.data import DataError

ENDS = {"entry_point": [20.0, -50.0, 0.0], "target_point": [10.0, -10.0, 2.0]}


def write_run(folder, names, ends=ENDS):
    paths = {name: {"left": ends, "right": ends} for name in names}
    record = {"dataset": "some CT", "dataset_kind": "real_ct_drr", "ssm_excludes": ["a"]}
    record |= {"ssm_leak": False}
    (folder / "paths.json").write_text(json.dumps({"paths": paths}))
    (folder / "metrics.json").write_text(json.dumps({"record": record}))


def test_the_first_subject_and_pair_of_a_run_are_read(tmp_path):
    write_run(tmp_path, ["a_1_T9_pair1", "a_1_T10_pair1", "a_1_T9_pair2", "b_T9_pair1"])
    found = simulation.read_planned_patient(tmp_path)
    assert found.levels == ("T9", "T10")
    assert found.names == ["T9 left", "T9 right", "T10 left", "T10 right"]
    assert found.record["subjects"] == ["a_1"]
    assert found.paths.entry_point.shape == (4, 3)


@pytest.mark.parametrize(
    ("names", "ends", "message"),
    [
        ([], ENDS, "no needle paths"),
        (["T9"], ENDS, "SUBJECT_LEVEL_pairN"),
        (["a_T9_pair1"], ENDS | {"entry_point": [1.0, 2.0]}, "2 x 3 numbers"),
        (["a_T9_pair1"], ENDS | {"entry_point": [1.0, 2.0, float("nan")]}, "2 x 3 finite"),
    ],
)
def test_errors_of_a_run_are_named(tmp_path, names, ends, message):
    write_run(tmp_path, names, ends)
    with pytest.raises(DataError, match=message):
        simulation.read_planned_patient(tmp_path)


def test_a_record_that_lacks_a_field_is_named(tmp_path):
    write_run(tmp_path, ["a_T9_pair1"])
    (tmp_path / "metrics.json").write_text(json.dumps({"record": {"dataset": "some CT"}}))
    with pytest.raises(DataError, match="lacks dataset_kind"):
        simulation.read_planned_patient(tmp_path)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(DataError, match="run folder of a finished"):
        simulation.read_planned_patient(tmp_path / "none")


def test_the_mean_spine_is_upright_and_in_order():
    """Head at +z, paths run forward (+y), left ones start at -x, the back is behind them."""
    patient = simulation.mean_shape_patient()
    entry, target = np.asarray(patient.paths.entry_point), np.asarray(patient.paths.target_point)
    assert patient.levels[0] == "T1"
    assert patient.levels[-1] == "L5"
    assert (np.diff(entry[::2, 2]) < 0.0).all()
    assert (target[:, 1] > entry[:, 1]).all()
    assert (entry[::2, 0] < entry[1::2, 0]).all()
    body = simulation.torso_distance(patient)
    inside = np.asarray(body(jnp.asarray(entry)))
    np.testing.assert_allclose(inside, -40.0, atol=15.0)
    behind = np.asarray(body(jnp.asarray(entry - np.array([0.0, 100.0, 0.0]))))
    assert (behind > 20.0).all()


def test_the_patient_is_prone_in_the_middle_of_the_workspace():
    patient = simulation.mean_shape_patient()
    place = simulation.prone_placement(patient)
    middle = place.apply(jnp.mean(patient.paths.entry_point, axis=0))
    np.testing.assert_allclose(middle, simulation.ROBOT_WORKSPACE_CENTER_MM, atol=1e-3)
    rotation = place.rotation()
    np.testing.assert_allclose(rotation.apply(jnp.array([0.0, 1.0, 0.0])), [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(rotation.apply(jnp.array([0.0, 0.0, 1.0])), [1, 0, 0], atol=1e-6)
