"""Damage the bytes of a file: anywhere, in the fields of a NIfTI header, or behind gzip's checksum.

Every mutation says what the reader may do with it (`Expects`). Content under a checksum (gzip,
PNG, npz) cannot change unnoticed; bytes that are not read cannot change the value.
"""

import gzip
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np

# sound: a valid value or a refusal; same: the value of the undamaged file; refused: a refusal.
Expects = Literal["sound", "same", "same or refused", "refused"]
Form = Literal[
    "nifti", "nifti.gz", "binary", "checked", "text", "json", "table", "xml", "split"
]  # form of a file, which decides how it is damaged

BOM = b"\xef\xbb\xbf"
_RUBBISH = {
    "empty file": b"",
    "AppleDouble file": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(40),
    "error page": b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n",
    "pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "other kind of file": b"\x89PNG\r\n\x1a\n" + bytes(64),
}
_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31))
_FLOATS = (0.0, -1.0, 1e-30, 1e30, -1e30, np.nan, np.inf, -np.inf, 3.4e38, 0.5)
# Fields of the header that say nothing about voxels, positions or units.
_IGNORED = (
    *("data_type", "db_name", "extents", "session_error", "regular", "dim_info", "intent_p1"),
    *("intent_p2", "intent_p3", "intent_code", "slice_start", "slice_end", "slice_code"),
    *("slice_duration", "cal_max", "cal_min", "toffset", "glmax", "glmin", "descrip", "aux_file"),
    "intent_name",
)
_HEADER_BYTES = 348


class Mutation(NamedTuple):
    """Damaged content of a file, the kind of damage, and what the reader may do with it."""

    kind: str
    content: bytes
    expects: Expects


def rubbish(rng: np.random.Generator, content: bytes) -> Mutation:
    """Replace the whole content by what other programs leave under such a name."""
    del content
    if rng.random() < 0.2:
        return Mutation("random bytes", rng.bytes(int(rng.integers(1, 2000))), "refused")
    kind = str(rng.choice(list(_RUBBISH)))
    return Mutation(kind, _RUBBISH[kind], "refused")


def damage(
    rng: np.random.Generator, content: bytes, expects: Expects = "sound", *, first: int = 0
) -> Mutation:
    """Damage the bytes from position `first` on in one of eight ways."""
    kind = str(rng.choice(list(_DAMAGES)))
    size = len(content) - first
    if size <= 0:
        return Mutation("nothing to damage", content, "same")
    start = first + int(rng.integers(size))
    # Most damage is a few bytes, some is much.
    length = int(min(2 ** rng.uniform(0.0, np.log2(size + 1)), len(content) - start)) or 1
    damaged = _DAMAGES[kind](rng, content, start, length)
    return Mutation(kind, damaged, "same" if damaged == content else expects)


def _flip(rng: np.random.Generator, content: bytes, start: int, length: int) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        changed[start + int(rng.integers(length))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _randomize(rng: np.random.Generator, content: bytes, start: int, length: int) -> bytes:
    length = min(length, 16)
    return content[:start] + rng.bytes(length) + content[start + length :]


def _number(rng: np.random.Generator, content: bytes, start: int, length: int) -> bytes:
    del length
    start -= start % 4 if rng.random() < 0.5 else 0
    if rng.random() < 0.5:
        packed = np.array([rng.choice(_FLOATS)], "<f4").tobytes()
    else:
        packed = int(rng.choice(_NUMBERS) % 2**32).to_bytes(4, rng.choice(["little", "big"]))
    return content[:start] + packed + content[start + 4 :]


_DAMAGES: dict[str, Callable[[np.random.Generator, bytes, int, int], bytes]] = {
    "flipped bits": _flip,
    "random bytes inside": _randomize,
    "extreme number": _number,
    "truncated": lambda rng, content, start, length: content[:start],
    "inserted": lambda rng, content, start, length: (
        content[:start] + rng.bytes(min(length, 4096)) + content[start:]
    ),
    "deleted": lambda rng, content, start, length: content[:start] + content[start + length :],
    "repeated": lambda rng, content, start, length: (
        content[: start + length] + content[start : start + length] + content[start + length :]
    ),
    "zeroed": lambda rng, content, start, length: (
        content[:start] + bytes(length) + content[start + length :]
    ),
}


def header_field(rng: np.random.Generator, content: bytes) -> Mutation:
    """Set one field of a NIfTI header to an extreme number or to random bytes."""
    fields = nib.Nifti1Header.template_dtype
    name = str(rng.choice(list(fields.names or ())))
    header = np.frombuffer(bytearray(content[:_HEADER_BYTES]), fields).copy()
    field = header[name][0]
    kind = np.asarray(field).dtype.kind
    if kind == "S" or rng.random() < 0.2:
        raw = np.frombuffer(rng.bytes(header[name].nbytes), header[name].dtype)
        header[name] = raw.reshape(header[name].shape)
    else:
        values = np.array(_FLOATS if kind == "f" else _NUMBERS, np.float64)
        value = values[rng.integers(len(values))]
        if kind in "iu":
            info = np.iinfo(np.asarray(field).dtype)
            value = np.clip(value, info.min, info.max)
        if np.ndim(field):
            header[name][0, rng.integers(len(field))] = value
        else:
            header[name] = value
    damaged = header.tobytes() + content[_HEADER_BYTES:]
    expects = "same" if name in _IGNORED or damaged == content else "sound"
    return Mutation(f"header field {name}", damaged, expects)


def behind_gzip(rng: np.random.Generator, content: bytes) -> Mutation:
    """Damage the content of a gzip file, so that its checksum is right again."""
    plain = gzip.decompress(content)
    found = header_field(rng, plain) if rng.random() < 0.5 else damage(rng, plain)
    return found._replace(content=gzip.compress(found.content, 1, mtime=0))


def recompressed(rng: np.random.Generator, content: bytes) -> Mutation:
    """Compress a gzip file in another way: the content is the same."""
    plain = gzip.decompress(content)
    if rng.random() < 0.5:
        return Mutation("recompressed", gzip.compress(plain, int(rng.integers(1, 10))), "same")
    middle = int(rng.integers(1, len(plain)))
    parts = gzip.compress(plain[:middle]) + gzip.compress(plain[middle:])
    return Mutation("gzip of two members", parts, "same")


def renamed_encoding(rng: np.random.Generator, content: bytes) -> Mutation:
    """Write the same text as other programs do: byte order mark, line ends, UTF-16."""
    text = content.decode("utf-8")
    crlf = text.replace("\n", "\r\n").encode()
    ways: Sequence[tuple[str, bytes, Expects]] = (
        ("byte order mark", BOM + content, "same"),
        ("Windows line ends", crlf, "same"),
        ("byte order mark and Windows line ends", BOM + crlf, "same"),
        ("UTF-16", text.encode("utf-16"), "same or refused"),
        ("no last line end", content.rstrip(), "same"),
    )
    return Mutation(*ways[rng.integers(len(ways))])
