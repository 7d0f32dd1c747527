"""The cache returns the computed result, and only for the same inputs."""

from typing import Any

import numpy as np
import pytest

from dartjax import data
from dartjax._errors import DataError
from dartjax.data import _cache as cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path))


class Counter:
    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return self.value


def test_a_second_call_makes_nothing_and_returns_the_same_bits():
    make = Counter((np.float64(0.1), {"a": np.arange(3, dtype=np.float32) / 3}))
    like: Any = (0, {"a": 0})
    content = [np.arange(4.0)]
    first = cache.remembered("things", "1", content, like, make)
    second = cache.remembered("things", "1", content, like, make)
    assert make.calls == 1
    assert first[0] == second[0] == 0.1
    assert first[1]["a"].tobytes() == second[1]["a"].tobytes()


def test_other_content_shape_or_version_is_made_anew():
    make = Counter(np.zeros(1))
    for version, array in (
        ("1", np.zeros(4)),
        ("2", np.zeros(4)),
        ("1", np.zeros((2, 2))),
        ("1", np.zeros(4, np.float32)),
    ):
        cache.remembered("things", version, [array], 0, make)
    assert make.calls == 4


def test_a_broken_file_is_made_again(tmp_path):
    make = Counter(np.arange(3))
    cache.remembered("things", "1", [], 0, make)
    (file,) = (tmp_path / "things").glob("*.npz")
    file.write_bytes(file.read_bytes()[:30])
    np.testing.assert_array_equal(cache.remembered("things", "1", [], 0, make), [0, 1, 2])
    assert make.calls == 2
    assert not list((tmp_path / "things").glob(".*"))


def test_no_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("DARTJAX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    with pytest.raises(DataError, match="set DARTJAX_CACHE"):
        cache.cache_folder()


def test_damage_inside_a_file_is_found(tmp_path):
    make = Counter(np.arange(300) % 7)
    cache.remembered("things", "1", [], 0, make)
    (file,) = (tmp_path / "things").glob("*.npz")
    whole = file.read_bytes()
    for place in range(40, len(whole), 37):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        np.testing.assert_array_equal(cache.remembered("things", "1", [], 0, make), make.value)


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path / "file"))  # not a folder
    with pytest.warns(UserWarning, match="the cache cannot be written.*set DARTJAX_CACHE"):
        found = cache.remembered("things", "1", [], 0, Counter(np.arange(3)))
    np.testing.assert_array_equal(found, [0, 1, 2])


def test_a_header_that_says_less_than_was_stored_is_found(tmp_path):
    """NumPy reads what the header says and then stops, before the checksum is compared."""
    file = tmp_path / "arrays.npz"
    np.savez(file, arr_0=np.arange(1e5))
    damaged = file.read_bytes().replace(b"'shape': (100000,)", b"'shape': (1,)     ")
    file.write_bytes(damaged)
    assert np.load(file)["arr_0"].shape == (1,)
    with pytest.raises(data.DataError, match="CRC"), data.open_arrays(file) as arrays:
        arrays["arr_0"]
