"""Run folders of killed runs: nothing is left behind, and nothing that was finished is lost."""

import fcntl
import os
import pathlib
import signal

import pytest

from dartjax.cli import _run_folder as run_folder
from dartjax.cli import launch
from dartjax.data import DataError
from tests.cli import dummy


@pytest.fixture(autouse=True)
def _same_compile_cache(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept as it is")


def write_run(folder, text):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "mark.txt").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(main, *flags):
    """Exit code of a run in this process."""
    with pytest.raises(SystemExit) as stopped:
        launch.run(main, dummy.Settings, ["x", *flags])
    return stopped.value.code


def test_what_killed_runs_left_is_removed_by_the_next(tmp_path):
    final = tmp_path / "a[1]"  # also with the characters of a pattern
    for name in (".a[1].17.partial", ".a[1].18-work.partial", ".other.17.partial"):
        (tmp_path / name / "meshes").mkdir(parents=True)
    run_folder.check_final(final, overwrite=False)
    assert names(tmp_path) == [".other.17.partial"]


def test_the_folder_of_a_running_process_stays(tmp_path):
    final = tmp_path / "a"
    with run_folder.partial_folder(final) as partial:
        run_folder.check_final(final, overwrite=False)
        assert partial.is_dir()
    run_folder.check_final(final, overwrite=False)
    assert not partial.exists()


def test_a_file_system_without_locks_removes_nothing(tmp_path, monkeypatch):
    def refused(handle, operation):
        raise OSError("no locks available")

    (tmp_path / ".a.17.partial").mkdir()
    monkeypatch.setattr(fcntl, "flock", refused)
    with run_folder.partial_folder(tmp_path / "a") as partial:
        run_folder.check_final(tmp_path / "a", overwrite=False)
        assert partial.is_dir() and (tmp_path / ".a.17.partial").is_dir()


def test_an_earlier_run_survives_a_kill_while_it_is_replaced(tmp_path, monkeypatch):
    """Killed after the earlier run was moved away, before the new one got its name."""
    final = tmp_path / "a"
    write_run(final, "first")
    write_run(tmp_path / "new", "second")
    rename = pathlib.Path.rename

    def killed(self, target):
        if self != final:
            raise KeyboardInterrupt  # and nothing is done after it
        return rename(self, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pathlib.Path, "rename", killed)
        run_folder.publish(tmp_path / "new", final, overwrite=True)
    assert not final.exists()
    with pytest.raises(DataError, match="exists"):
        run_folder.check_final(final, overwrite=False)
    assert (final / "mark.txt").read_text() == "first"
    assert names(tmp_path) == ["a", "new"]


def test_an_interrupted_replacement_is_undone(tmp_path, monkeypatch):
    final = tmp_path / "a"
    write_run(final, "first")
    write_run(tmp_path / "new", "second")
    rename = pathlib.Path.rename

    def interrupted(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_folder.publish(tmp_path / "new", final, overwrite=True)
    assert (final / "mark.txt").read_text() == "first"


def test_a_replaced_run_is_removed(tmp_path):
    write_run(tmp_path / "a", "first")
    write_run(tmp_path / "new", "second")
    run_folder.publish(tmp_path / "new", tmp_path / "a", overwrite=True)
    write_run(tmp_path / ".a.17.earlier", "zeroth")  # of a run killed after it was done
    run_folder.check_final(tmp_path / "a", overwrite=True)
    assert (tmp_path / "a" / "mark.txt").read_text() == "second" and names(tmp_path) == ["a"]


def test_intermediate_results_stay_until_the_run_has_its_name(tmp_path):
    final, work = tmp_path / "a", tmp_path / "a.work"
    work.mkdir()

    def main(ctx, _):
        ctx.remove_when_done(work)
        (ctx.out / "metrics.json").write_text("{}")
        if not final.with_name("again").exists():
            final.with_name("again").touch()
            raise ValueError("after the report was written")

    assert run(main, f"--out={final}") == 1
    assert work.is_dir() and not final.exists()
    assert run(main, f"--out={final}") == 0
    assert names(tmp_path) == ["a", "a.failed", "again"]


def test_intermediate_results_are_still_there_when_the_run_is_published(tmp_path, monkeypatch):
    work, seen = tmp_path / "a.work", []
    work.mkdir()
    publish = run_folder.publish

    def watched(*arguments, **options):
        seen.append(work.is_dir())
        publish(*arguments, **options)
        seen.append(work.is_dir())

    monkeypatch.setattr(run_folder, "publish", watched)
    run(lambda ctx, _: ctx.remove_when_done(work), f"--out={tmp_path / 'a'}")
    assert seen == [True, True] and names(tmp_path) == ["a"]


class Killed(BaseException):
    """Stands for the end of this process."""


def test_sigterm_leaves_nothing_and_ends_the_process(tmp_path, monkeypatch):
    ends = []

    def kill(process, number):
        ends.append((process, number, signal.getsignal(number), names(tmp_path)))
        raise Killed

    def main(ctx, _):
        (ctx.out / "half.txt").write_text("half")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(os, "kill", kill)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Killed):
        launch.run(main, dummy.Settings, ["x", f"--out={tmp_path / 'a'}"])
    assert ends == [(os.getpid(), signal.SIGTERM, signal.SIG_DFL, [])]
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def main(ctx, _):
        (ctx.out / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.run(main, dummy.Settings, ["x", f"--out={tmp_path / 'a'}"])
    assert names(tmp_path) == []
