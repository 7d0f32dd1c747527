"""Units of a data set are complete or absent: kills, full disks, two writers, other settings."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dartjax.data import DataError
from dartjax.data import _atomic as shards

ROOT = Path(__file__).parent.parent.parent
MANIFEST = {"seed": 3, "settings": {"views": "random", "kvp": [70.0, 110.0]}}

# Writes 12 units of 4 files, and a flag at the end; every unit takes some 20 ms.
WRITER = """
import pathlib, sys, time
from dartjax import data as shards
root = pathlib.Path(sys.argv[1])
shards.start_dataset(root, {"seed": 3})
print("started", flush=True)
with shards.only_writer(root / "scan"):
    for unit in range(12):
        folder = root / "scan" / f"unit-{unit}"
        if folder.exists():
            continue
        def write(partial):
            for name in range(4):
                (partial / f"{name}.bin").write_bytes(bytes([unit, name]) * 20000)
                time.sleep(0.005)
        shards.publish_folder(folder, write)
shards.finish_shard(root, (0, 1), lambda: {"scans": 1})
"""


def start_writer(root):
    command = [sys.executable, "-c", WRITER, str(root)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def content(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_killed_at_any_moment_and_the_same_in_the_end(tmp_path):
    assert start_writer(tmp_path / "calm").wait() == 0
    rng = np.random.default_rng(0)
    for delay in rng.uniform(0.0, 0.2, 2):
        process = start_writer(tmp_path / "killed")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for unit in (tmp_path / "killed" / "scan").glob("unit-*"):
            sizes = [path.stat().st_size for path in unit.iterdir()]
            assert sizes == 4 * [40000]  # under its own name a unit is whole
    assert start_writer(tmp_path / "killed").wait() == 0
    assert content(tmp_path / "killed") == content(tmp_path / "calm")
    manifest = json.loads((tmp_path / "killed" / "dataset.json").read_text())
    assert manifest == {"seed": 3, "scans": 1, "finished": True}


@pytest.mark.parametrize("after", [1, 4])
def test_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch, after):
    calls = 0

    def fsync(handle):
        nonlocal calls
        calls += 1
        if calls >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(partial):
        for name in range(4):
            (partial / f"{name}.bin").write_bytes(b"x")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match="no space left"):
        shards.publish_folder(tmp_path / "unit", write)
    with pytest.raises(DataError, match="no space left"):
        shards.publish_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


def test_other_errors_leave_nothing_either(tmp_path):
    def write(partial):
        (partial / "half").write_bytes(b"x")
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError, match="renderer broke"):
        shards.publish_folder(tmp_path / "unit", write)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "deep" / "a.npz"
    shards.publish_arrays(path, {"a": np.arange(3)})

    def broken(partial):
        partial.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        shards.publish_file(path, broken)
    assert [each.name for each in path.parent.iterdir()] == ["a.npz"]
    np.testing.assert_array_equal(np.load(path, allow_pickle=False)["a"], np.arange(3))


def test_partial_files_of_killed_processes_are_removed(tmp_path):
    """And that of a process that is writing is not."""
    path = tmp_path / "a[0].npz"
    abandoned, living = tmp_path / ".a[0].npz.17.partial", tmp_path / ".a[0].npz.18.partial"
    abandoned.write_bytes(b"half")
    living.write_bytes(b"half")
    with living.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shards.publish_arrays(path, {"a": np.arange(3)})
    assert sorted(tmp_path.iterdir()) == [living, path]


def test_a_partial_file_is_locked_while_it_is_written(tmp_path):
    def write(partial):
        partial.write_bytes(b"whole")
        with partial.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    shards.publish_file(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_folder_is_removed_whole(tmp_path, monkeypatch):
    work = tmp_path / "work"
    (work / "scans").mkdir(parents=True)

    def killed(folder, **options):
        if folder.exists():
            (folder / "scans").rmdir()
            raise KeyboardInterrupt

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.remove_folder(work)
    assert not work.exists()
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    work.mkdir()
    shards.remove_folder(work)
    assert not list(tmp_path.iterdir())


def test_files_in_folders_of_a_unit_are_flushed_too(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))

    def write(partial):
        (partial / "meshes").mkdir()
        (partial / "meshes" / "a.ply").write_bytes(b"x")

    shards.publish_folder(tmp_path / "unit", write)
    inner = [tmp_path / "unit", *(tmp_path / "unit").rglob("*"), tmp_path]
    assert sorted(flushed) == sorted(path.stat().st_ino for path in inner)


def test_two_processes_do_not_write_one_scan(tmp_path):
    second = shards.only_writer(tmp_path / "scan")
    with shards.only_writer(tmp_path / "scan"), pytest.raises(DataError, match="another process"):
        second.__enter__()
    with shards.only_writer(tmp_path / "scan"):
        pass


def test_a_folder_holds_one_data_set(tmp_path):
    shards.start_dataset(tmp_path / "set", MANIFEST)
    shards.start_dataset(tmp_path / "set", MANIFEST)
    with pytest.raises(DataError, match="seed = 3, but now it is 4"):
        shards.start_dataset(tmp_path / "set", MANIFEST | {"seed": 4})
    other = MANIFEST | {"settings": {"views": "orthogonal", "kvp": [70.0, 110.0]}}
    with pytest.raises(DataError, match=r"settings\.views = 'random'"):
        shards.start_dataset(tmp_path / "set", other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="empty folder"):
        shards.start_dataset(tmp_path / "mine", MANIFEST)


def test_the_last_shard_finishes_the_set(tmp_path):
    shards.start_dataset(tmp_path, MANIFEST)
    assert not shards.finish_shard(tmp_path, (1, 2), lambda: {"scans": 2})
    assert shards.shard_is_done(tmp_path, (1, 2)) and not shards.shard_is_done(tmp_path, (0, 2))
    assert not json.loads((tmp_path / "dataset.json").read_text())["finished"]
    assert shards.finish_shard(tmp_path, (0, 2), lambda: {"scans": 2})
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    assert manifest == {**MANIFEST, "scans": 2, "finished": True}


def test_a_shard_that_was_finished_before_a_kill_is_not_marked_again(tmp_path):
    shards.start_dataset(tmp_path, MANIFEST)

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.finish_shard(tmp_path, (0, 1), killed)
    (flag,) = (tmp_path / "shards").glob("*.json")
    written = flag.stat().st_mtime_ns
    assert shards.finish_shard(tmp_path, (0, 1), lambda: {})
    assert flag.stat().st_mtime_ns == written


def test_shards_share_all_items_once():
    items = list(range(11))
    parts = [shards.shard_of(items, shards.parse_shard(f"{i}/4")) for i in range(4)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/4", "1/0", ""])
def test_a_shard_is_written_as_i_of_n(text):
    with pytest.raises(DataError, match="I/N"):
        shards.parse_shard(text)
