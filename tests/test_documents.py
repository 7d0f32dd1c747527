"""Text and JSON as people and other programs write them."""

import pytest

from dartjax import _documents as documents
from dartjax._errors import DataError


def test_byte_order_mark_and_umlauts(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"größe": 1}'.encode())
    assert documents.read_json(path) == {"größe": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"sdd": 1020, "sdd": 102}', r"a\.json: the key 'sdd' occurs twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "the key 'b' occurs twice"),
        (b'{"a": 1', "truncated or damaged"),
        (b"", "truncated or damaged"),
        ("größe".encode("latin-1"), "save it as UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"9" * 10_000, "not valid JSON"),
    ],
)
def test_documents_that_are_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        documents.read_json(tmp_path / "a.json")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        documents.read_json(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, True), (1, True), ("yes", True), (" False ", False), (None, False), (0, False)],
)
def test_words_for_true_and_false(value, truth):
    assert documents.truth_of("a", value) is truth


@pytest.mark.parametrize("value", ["maybe", 2, [], {}])
def test_other_words(value):
    with pytest.raises(DataError, match="write true or false"):
        documents.truth_of("a", value)
