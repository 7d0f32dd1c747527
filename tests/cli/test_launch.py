"""The run folder, exit codes and result files, seen from outside: `dummy.py` in a process."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from dartjax.cli import launch
from dartjax.report import _results as results
from tests.cli import dummy

ROOT = pathlib.Path(__file__).parents[2]


def run_dummy(tmp_path, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tests.cli.dummy", *arguments],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DARTJAX_CACHE": str(tmp_path / "cache")}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_nothing(*arguments):
    """Exit code of a launch that must stop before its run, in this process."""

    def main(_, __):
        pytest.fail("the run was started")

    with pytest.raises(SystemExit) as stopped:
        launch.run(main, dummy.Settings, ["nothing", *arguments], presets=("default", "fast"))
    return stopped.value.code


def test_a_finished_run_has_config_and_metrics(tmp_path):
    done = run_dummy(tmp_path, "--count=4", "--seed=7", "--preset=fast", "--out=runs/a")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a"]
    config = json.loads((tmp_path / "runs/a/config.json").read_text())
    assert config["experiment"] == "dummy"
    assert config["flags"]["count"] == 4 and config["flags"]["seed"] == 7
    assert set(config["versions"]) >= {"dartjax", "jax", "numpy"} and config["commit"]
    metrics = json.loads((tmp_path / "runs/a/metrics.json").read_text())
    assert metrics["record"]["seed"] == 7 and metrics["record"]["preset"] == "fast"
    assert metrics["record"]["n_subjects"] == 2 and metrics["record"]["commit"] == config["commit"]
    assert metrics["summary"]["total"] == 1 + 2 + 3 + 4
    assert metrics["summary"]["masd_mm"] is None
    assert metrics["summary"]["masd_mm_reason"] == "not a number"
    assert metrics["cases"][0] == {"level": "L1", "hd95_mm": None, "hd95_mm_reason": "infinite"}
    assert "adding: 4/4 at 4" in done.stderr


def test_a_killed_run_leaves_nothing_under_its_name(tmp_path):
    assert run_dummy(tmp_path, "--out=runs/a", "--end=killed").returncode == -9
    assert not (tmp_path / "runs/a").exists()
    assert any((tmp_path / "runs").glob(".a.*.partial"))
    assert run_dummy(tmp_path, "--out=runs/a").returncode == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


def test_a_failed_run_keeps_its_traceback_in_a_failed_folder(tmp_path):
    failed = run_dummy(tmp_path, "--out=runs/a", "--end=raise")
    assert failed.returncode == 1
    assert "ValueError: the sum" in failed.stderr and "Traceback" not in failed.stderr
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.failed"]
    log = tmp_path / "runs/a.failed/error.log"
    assert str(log) in failed.stderr and "Traceback" in log.read_text()
    assert (tmp_path / "runs/a.failed/half.txt").exists()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("bad_input", "numbers.csv: column 2 is empty; fill it"),
        ("missing", "no numbers.csv: give --data"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing(tmp_path, end, message):
    wrong = run_dummy(tmp_path, "--out=runs/a", f"--end={end}")
    assert wrong.returncode == 2
    assert message in wrong.stderr and "Traceback" not in wrong.stderr
    assert not any((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seed=three", "--seed=three"),
        ("--cuont=3", "cuont"),
        ("--preset=slow", "choose one of default, fast"),
        ("3", "unexpected argument '3'"),
    ],
)
def test_bad_usage_exits_with_2_before_the_run(tmp_path, capsys, argument, message):
    assert run_nothing(f"--out={tmp_path / 'a'}", argument) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_an_earlier_run_is_replaced_only_with_overwrite(tmp_path):
    assert run_dummy(tmp_path, "--out=a").returncode == 0
    (tmp_path / "a/mark.txt").write_text("first")
    rejected = run_dummy(tmp_path, "--out=a")
    assert rejected.returncode == 2 and "--overwrite" in rejected.stderr
    assert (tmp_path / "a/mark.txt").exists()
    assert run_dummy(tmp_path, "--out=a", "--overwrite", "--end=raise").returncode == 1
    assert (tmp_path / "a/mark.txt").exists()  # a failed run does not cost the earlier one
    assert run_dummy(tmp_path, "--out=a", "--overwrite", "--end=three").returncode == 3
    assert not (tmp_path / "a/mark.txt").exists() and (tmp_path / "a/metrics.json").exists()


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    assert run_nothing(f"--out={tmp_path / 'mine'}", "--overwrite") == 2
    assert "not a run folder" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_help_shows_our_flags_and_only_ours(tmp_path):
    shown = run_dummy(tmp_path, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Tiny experiment")
    for name in ("--count", "--end", "--seed", "--out", "--preset", "--overwrite"):
        assert name in shown.stdout
    assert "verbosity" not in shown.stdout and "%s" not in shown.stdout


def test_a_config_repeats_its_run_and_given_flags_take_precedence(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept as it is")

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            launch.run(dummy.main, dummy.Settings, ["x", *arguments], presets=("default", "fast"))
        assert not stopped.value.code

    first, second, config = tmp_path / "a", tmp_path / "b", tmp_path / "a/config.json"
    run("--count=4", "--seed=7", "--preset=fast", "--names=a,b", f"--out={first}")
    run(f"--config={config}", "--seed=8", f"--out={second}")
    given, repeated = (json.loads((out / "config.json").read_text()) for out in (first, second))
    changed = {"out": str(second), "seed": 8, "config": str(config)}
    assert repeated["flags"] == {**given["flags"], **changed}
    metrics = json.loads((second / "metrics.json").read_text())
    assert metrics["summary"]["total"] == 10 and metrics["record"]["preset"] == "fast"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("no json", "cannot be read"),
        ('{"flags": {}}', "cannot be read"),
        ('{"experiment": "other", "flags": {}}', "belongs to other"),
        ('{"experiment": "test_launch", "flags": {"sum": 3}}', "has no --sum"),
        ('{"experiment": "test_launch", "flags": {"count": "x"}}', "count = 'x' is not allowed"),
        ('{"experiment": "test_launch", "flags": {"count": 0}}', "count = 0 is not allowed"),
    ],
)
def test_a_config_that_does_not_fit_is_rejected(tmp_path, capsys, config, message):
    (tmp_path / "config.json").write_text(config)
    assert run_nothing(f"--config={tmp_path / 'config.json'}", f"--out={tmp_path / 'a'}") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_settings_and_the_launcher_are_imported_without_jax():
    code = "import sys; import dartjax.cli; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_without_git_the_commit_is_the_version(tmp_path):
    done = run_dummy(tmp_path, "--out=a", PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a/config.json").read_text())["commit"].startswith("dartjax-0.")


RECORD = {
    "dataset": "phantoms",
    "dataset_kind": "synthetic",
    "ids_hash": "0123456789abcdef",
    "n_subjects": 1,
    "n_vertebrae": 2,
    "ssm_excludes": ["a"],
    "ssm_leak": False,
    "seed": 0,
    "commit": "abc",
    "preset": "default",
    "nsd_tolerance_mm": 1.0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_kind": "verse"},
        {"n_subjects": True},
        {"n_vertebrae": 2.5},
        {"ssm_leak": 0},
        {"nsd_tolerance_mm": float("nan")},
        {"nsd_tolerance_mm": 0.0},
        {"seed": None},
    ],
)
def test_a_wrong_record_is_rejected_by_field_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        results.metrics_text({**RECORD, **change}, {}, [])


@pytest.mark.parametrize("field", list(RECORD))
def test_a_record_without_a_field_is_rejected(field):
    with pytest.raises(ValueError, match=field):
        results.check_record({k: v for k, v in RECORD.items() if k != field})


def test_nonfinite_numbers_are_null_with_a_reason_at_every_depth():
    summary = {
        "array_mm": np.array([1.0, np.nan]),
        "nested": {"dice": -np.inf},
        "masd_mm": np.float32("nan"),
        "masd_mm_reason": "the fit left the image",
        "dice": np.float64(0.5),
    }
    written = json.loads(results.metrics_text(RECORD, summary, []))["summary"]
    assert written == {
        "array_mm": [1.0, None],
        "array_mm_reason": "not a number",
        "nested": {"dice": None, "dice_reason": "infinite"},
        "masd_mm": None,
        "masd_mm_reason": "the fit left the image",
        "dice": 0.5,
    }


@pytest.mark.parametrize("name", ["VerSe-small", "verse small", "VERSE_SMALL"])
def test_the_name_verse_small_needs_matching_kind_and_ids(name):
    real = {**RECORD, "dataset": name, "dataset_kind": "real_ct_drr"}
    rows = [{"level": "L1", "dice": 0.9}]
    for record, ids_hash in [
        ({**real, "dataset_kind": "synthetic"}, RECORD["ids_hash"]),
        (real, "another hash"),
        (real, None),
    ]:
        with pytest.raises(ValueError, match="VerSe-small is not allowed"):
            results.metrics_text(record, {}, [], verse_small_ids_hash=ids_hash)
        with pytest.raises(ValueError, match="VerSe-small is not allowed"):
            results.markdown_table(record, rows, verse_small_ids_hash=ids_hash)
    assert name in results.metrics_text(real, {}, [], verse_small_ids_hash=RECORD["ids_hash"])


def test_the_authors_column_may_name_verse_small():
    rows = [{"level": "L1", "dice": 0.9, results.REPORTED_BY_AUTHORS: 0.95}]
    table = results.markdown_table(RECORD, rows)
    assert "| L1 | 0.900 | 0.950 |" in table and "dataset_kind synthetic" in table


def test_a_leak_is_recorded_but_not_tabled():
    leak = {**RECORD, "ssm_leak": True}
    assert json.loads(results.metrics_text(leak, {}, []))["record"]["ssm_leak"] is True
    with pytest.raises(ValueError, match="no table"):
        results.markdown_table(leak, [{"dice": 0.9}])
