"""Read text and JSON as people and other programs write it: in UTF-8, with or without a byte order
mark. Nothing is guessed: other encodings and keys that occur twice are refused."""

import json
import os
from pathlib import Path
from typing import Any

from dartjax._errors import DataError

_TRUE, _FALSE = ("true", "yes", "1"), ("", "false", "no", "0")


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file in UTF-8. DataError for a missing file and another encoding."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not text in UTF-8, or damaged ({error}): save it as UTF-8"
        ) from error


def truth_of(where: str, value: Any) -> bool:
    """Interpret a hand-written truth value, such as true, 1 or "false"; null is false. DataError
    for anything else."""
    text = "" if value is None else str(value).strip().lower()
    if isinstance(value, list | dict) or text not in _TRUE + _FALSE:
        raise DataError(f"{where} is {value!r}: write true or false")
    return text in _TRUE


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file in UTF-8. DataError for a missing or invalid file and repeated keys."""
    return parse_json(str(path), read_text(path))


def parse_json(where: str, text: str) -> Any:
    """Parse JSON; `where` begins the messages. DataError if it is invalid or repeats a key."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{where}: the key {twice!r} occurs twice in one object: keep one")
        return content

    try:
        return json.loads(text, object_pairs_hook=without_repetition)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON, truncated or damaged ({error})") from error
