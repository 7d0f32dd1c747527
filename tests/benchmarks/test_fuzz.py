"""The fuzzer: its mutations can be repeated, it finds faults, and it finds none in dartjax."""

import numpy as np
import pytest

from benchmarks.fuzz import mutations, trial, worker
from benchmarks.fuzz.readers import Reader, all_readers


def number_reader(read):
    """A reader of a text with one number."""
    return Reader(
        "number",
        {"a.txt": "text"},
        lambda folder: (folder / "a.txt").write_text("3.5\n"),
        lambda folder: {"number": read((folder / "a.txt").read_text())},
        refusals=(LookupError,),
    )


def judged(tmp_path, read, content, expects="sound"):
    trials = trial.Trial([number_reader(read)], tmp_path / "files")
    mutation = mutations.Mutation("kind", content, expects)
    return trials.judge(0, trials.folders[0] / "a.txt", mutation)


def refuse(text):
    if text != "3.5\n":
        raise LookupError("a.txt: not a number")
    return np.float64(3.5)


def test_faults_of_a_reader_are_found(tmp_path):
    def as_float(text):
        return np.float64(text)

    cases = (
        (as_float, b"x", "sound", "ValueError"),
        (as_float, b"nan", "sound", "unsound value"),
        (as_float, b"4", "same", "value differs"),
        (as_float, b"4", "refused", "not refused"),
        (lambda text: np.float32(text) if len(text) < 4 else 3.5, b"4", "sound", "unsound value"),
        (refuse, b"4", "same", "valid file refused"),
    )
    for number, (read, content, expects, reason) in enumerate(cases):
        found = judged(tmp_path / str(number), read, content, expects)
        assert (found.result, found.reason) == ("failure", reason)
    assert judged(tmp_path / "a", as_float, b"4").result == "right"
    assert judged(tmp_path / "b", refuse, b"4", "same or refused").result == "refused"


def test_a_hanging_reader_is_stopped(tmp_path, monkeypatch):
    def hang(text):
        while text != "3.5\n":
            pass
        return np.float64(3.5)

    monkeypatch.setattr(trial, "SECONDS", 0.2)
    assert judged(tmp_path, hang, b"4").reason == "over 0.2 s"


def test_mutations_depend_on_seed_and_index_only(tmp_path):
    readers = [reader for reader in all_readers() if reader.name in ("load_cameras", "read_plans")]
    trials = [trial.Trial(readers, tmp_path / name) for name in "ab"]
    for index in range(20):
        (_, _, first), (_, _, second) = (each.mutation(7, index) for each in trials)
        assert first == second
    assert trials[0].mutation(7, 3)[2] != trials[0].mutation(8, 3)[2]


@pytest.mark.slow
def test_no_reader_of_dartjax_fails():
    found = list(worker.results(seed=11, reader="", most=300, minutes=5.0))
    assert len(found) == 300
    assert [(f.index, f.reader, f.reason) for f in found if f.result == "failure"] == []
    assert sum(each.result == "right" for each in found) > 50
