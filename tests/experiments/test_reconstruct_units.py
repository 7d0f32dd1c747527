"""Units: complete or absent, read back unchanged, never mixed, each made once."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

from dartjax import data, report
from dartjax.data import _atomic
from dartjax.pipeline import Study
from dartjax.report import _results
from experiments.reconstruct import units
from experiments.reconstruct.sources import Source


def source(name):
    return Source(name, "solids", "synthetic", lambda: pytest.fail("no CT is read here"))


SOURCES = [source(name) for name in ("a", "b", "c", "d", "e")]


def begin(work, study=None, sources=SOURCES, commit="abc", keep=True):
    units.begin(work, sources, study or Study(), commit, keep=keep)


@pytest.fixture
def written(monkeypatch):
    """Subjects whose units are filled, by a writer that needs no CT."""
    done = []

    def writer(case, answers, study, *, shown, doubts, progress):
        row = {"subject": case, "dice": float("nan"), "dice_reason": "why", "path": None, "n": 1}
        content = {
            "reason": "",
            "people": [case],
            "ssm_leak": False,
            "doubts": doubts,
            "cases": [_results.with_reasons(row)],
            "grades": {"oracle": [_results.with_reasons({"dice": np.float32(0.5)})]},
            "paths": {},
            "spines": [],
        }

        def write(folder):
            done.append(case)
            _atomic.publish_json(folder / "unit.json", content)

        return write

    monkeypatch.setattr(report, "subject_writer", writer)
    return done


def make(work, name, answer=lambda case: None, *, strict=False):
    loaded = Source(name, "solids", "synthetic", lambda: name)
    units.make(work, loaded, answer, Study(), shown=False, strict=strict)


def test_a_unit_is_made_once_and_read_back_as_it_was(tmp_path, written):
    begin(tmp_path / "work")
    make(tmp_path / "work", "a")
    make(tmp_path / "work", "a", lambda case: pytest.fail("made twice"))
    assert written == ["a"]
    unit = units.read(tmp_path / "work", "a")
    (row,) = unit.cases
    assert math.isnan(row["dice"]) and row["dice_reason"] == "why"
    assert row["path"] is None and row["n"] == 1
    assert unit.grades == {"oracle": [{"dice": 0.5}]}
    assert (unit.reason, unit.people, unit.ssm_leak) == ("", ["a"], False)


def test_a_run_that_dies_while_writing_leaves_no_unit(tmp_path, written, monkeypatch):
    work = tmp_path / "work"
    begin(work)

    def dies(case, answers, study, *, shown, doubts, progress):
        def write(folder):
            (folder / "half.txt").write_text("half")
            raise KeyboardInterrupt

        return write

    with monkeypatch.context() as patch:
        patch.setattr(report, "subject_writer", dies)
        with pytest.raises(KeyboardInterrupt):
            make(work, "a")
    assert not units.folder_of(work, "a").exists()
    make(work, "a")
    assert [p.name for p in units.folder_of(work, "a").iterdir()] == ["unit.json"]


def test_doubts_about_a_scan_are_printed_and_kept(tmp_path, written):
    def load():
        warnings.warn("a_ct.nii.gz: no orientation", stacklevel=1)
        return "a"

    begin(tmp_path / "work")
    with pytest.warns(UserWarning, match="no orientation"):
        units.make(
            tmp_path / "work",
            Source("a", "solids", "synthetic", load),
            lambda case: None,
            Study(),
            shown=False,
            strict=True,
        )
    assert units.read(tmp_path / "work", "a").doubts == ["a_ct.nii.gz: no orientation"]


def raise_data_error(case):
    raise data.DataError(f"{case}_ct.nii.gz: not a readable NIfTI file")


def test_a_subject_that_cannot_be_used_is_a_unit_that_says_why(tmp_path, written):
    begin(tmp_path / "work")
    make(tmp_path / "work", "b", raise_data_error)
    unit = units.read(tmp_path / "work", "b")
    assert "b_ct.nii.gz" in unit.reason
    assert unit.cases == [] and unit.grades == {}
    assert written == []


def test_a_single_subject_that_cannot_be_used_is_an_error(tmp_path, written):
    begin(tmp_path / "work")
    with pytest.raises(data.DataError, match=r"b_ct\.nii\.gz"):
        make(tmp_path / "work", "b", raise_data_error, strict=True)
    assert not units.folder_of(tmp_path / "work", "b").exists()


def test_a_bug_is_no_property_of_a_subject(tmp_path, written):
    begin(tmp_path / "work")
    with pytest.raises(ZeroDivisionError):
        make(tmp_path / "work", "b", lambda case: 1 / 0)
    assert not units.folder_of(tmp_path / "work", "b").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"study": Study(seed=1)}, "settings.seed"),
        ({"study": Study(levels=("T9",))}, "settings.levels"),
        ({"sources": SOURCES[:3]}, "subjects"),
        ({"commit": "def"}, "commit"),
        (
            {"sources": [dataclasses.replace(s, labels="totalsegmentator") for s in SOURCES]},
            "labels",
        ),
    ],
)
def test_units_of_another_run_are_rejected(change, named, tmp_path):
    begin(tmp_path / "work")
    begin(tmp_path / "work")
    with pytest.raises(data.DataError, match=named) as error:
        begin(tmp_path / "work", **change)
    assert "--work" in str(error.value)


def test_units_of_other_code_are_rejected(tmp_path, monkeypatch):
    begin(tmp_path / "work")
    monkeypatch.setattr(units, "_code_hash", lambda: "changed")
    with pytest.raises(data.DataError, match="code"):
        begin(tmp_path / "work")


def test_units_of_another_run_can_be_thrown_away_but_nothing_else(tmp_path, written):
    work = tmp_path / "work"
    begin(work)
    make(work, "a")
    begin(work, Study(seed=1), keep=False)
    assert not units.folder_of(work, "a").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(data.DataError, match=r"other files but no dataset\.json"):
        begin(mine, keep=False)
    assert (mine / "thesis.tex").exists()


def test_processes_share_the_subjects_out_and_meet(tmp_path, written):
    work = tmp_path / "work"
    begin(work)
    for process in range(3):
        for each in _atomic.shard_of(SOURCES, (process, 3)):
            make(work, each.subject)
    assert sorted(written) == [each.subject for each in SOURCES]
    units.wait_for(work, written)


def test_the_first_subject_has_the_seed_of_the_run_and_no_two_have_the_same():
    seeds = [Study(seed=3).seed_of(index) for index in range(200)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 200
    assert seeds == [Study(seed=3).seed_of(index) for index in range(200)]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_damaged_unit_is_named(tmp_path, written):
    begin(tmp_path / "work")
    make(tmp_path / "work", "a")
    file = units.folder_of(tmp_path / "work", "a") / "unit.json"
    file.write_text(json.dumps({"reason": ""}))
    with pytest.raises(data.DataError, match="lacks 'cases'"):
        units.read(tmp_path / "work", "a")
