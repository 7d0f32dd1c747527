"""Read the pixels of PNG, TIFF and NumPy files with the bit depth and polarity of the file.

Pillow reduces 16 bit PNGs with alpha and 16 bit colour to 8 bit, ignores WhiteIsZero in 16 bit
TIFFs, and does not read several kinds of TIFF; these are read in another way here.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL import Image as PillowImage

from dartjax._arrays import PathLike, map_array
from dartjax._errors import DataError

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_ALPHA, _RGBA = 4, 6  # colour types of PNG
_WHITE_IS_ZERO = 0
_MAX_PIXELS = 16384**2
_BITS = (1, 8, 16, 32, 64)


def read_pixels(path: PathLike) -> Shaped[np.ndarray, "..."]:
    """Read the pixels of a PNG, TIFF (its first page) or .npy file, in the type of the file.

    WhiteIsZero is inverted. DataError for a missing or damaged file, another suffix, an image too
    large for Pillow, 16 bit colour PNGs, and TIFFs with 2 to 15 bits other than 8.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: radiographs are read from {', '.join(SUFFIXES)}: convert it")
    try:
        if suffix == ".npy":
            pixels = map_array(path)
        else:
            pixels = _png(path) if suffix == ".png" else _tiff(path)
    except PillowImage.DecompressionBombError as error:
        raise DataError(f"{path}: {error}: crop or reduce the image") from error
    except DataError:
        raise
    except Exception as error:  # the parsers of TIFF raise anything
        raise DataError(f"{path}: not a readable image, truncated or damaged ({error})") from error
    return pixels.astype(pixels.dtype.newbyteorder("=").str)


def _png(path: PathLike) -> Shaped[np.ndarray, "..."]:
    content = Path(path).read_bytes()
    _check_png(content)
    depth, color = content[24], content[25]
    if depth < 16 or color == 0:
        return _pillow(io.BytesIO(content))
    if color != _GREY_ALPHA:
        raise DataError(f"{path}: 16 bit colour, but an X-ray is grey: save it as 16 bit greyscale")
    # Two channels of 16 bits have the bytes of four channels of 8 bits, which Pillow keeps.
    header = content[12:24] + bytes([8, _RGBA]) + content[26:29]
    relabelled = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    four = np.ascontiguousarray(_pillow(io.BytesIO(relabelled)))
    return four.view(">u2").astype(np.uint16)


def _check_png(content: bytes) -> None:
    """Raise ValueError unless every chunk has its checksum; Pillow does not check the pixels'."""
    if not content.startswith(_SIGNATURE) or content[12:16] != b"IHDR":
        raise ValueError("its content is not PNG")
    start, name = len(_SIGNATURE), b""
    while name != b"IEND":
        (length,) = struct.unpack_from(">I", content, start)
        end = start + 8 + length
        name, (checksum,) = content[start + 4 : start + 8], struct.unpack_from(">I", content, end)
        if zlib.crc32(content[start + 4 : end]) != checksum:
            raise ValueError(f"wrong checksum of the part {name!r}")
        start = end + 4


def _tiff(path: PathLike) -> Shaped[np.ndarray, "..."]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        bits, photometric = page.bitspersample, page.photometric
        if page.imagewidth * page.imagelength > _MAX_PIXELS:
            raise DataError(f"{path}: {page.shape} pixels are too many: crop or reduce the image")
        if bits not in _BITS:
            raise DataError(f"{path}: {bits} bits per pixel: store it with 8 or 16")
        try:
            pixels = _pillow(path)
        except (OSError, SyntaxError):
            pixels = None
        if pixels is None or bits != 8 * pixels.dtype.itemsize * (bits > 1) or bits > 16:
            pixels = page.asarray() if bits > 1 else pixels
        elif bits == 8:
            return pixels  # Pillow has inverted it
    if pixels is None:
        raise ValueError("neither Pillow nor tifffile can read it")
    return _inverted(path, pixels) if photometric == _WHITE_IS_ZERO and bits > 1 else pixels


def _inverted(path: PathLike, pixels: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Invert WhiteIsZero; floats have no full range, so they are kept."""
    if np.issubdtype(pixels.dtype, np.signedinteger):
        raise DataError(f"{path}: signed numbers with WhiteIsZero: save it as 16 bit BlackIsZero")
    if np.issubdtype(pixels.dtype, np.unsignedinteger):
        return np.iinfo(pixels.dtype).max - pixels
    return pixels


def _pillow(source: PathLike | io.BytesIO) -> Shaped[np.ndarray, "..."]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
        with PillowImage.open(source) as image:
            pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
            is_png = image.format == "PNG"
    # Some versions of Pillow read 16 bit PNGs as 32 bit integers.
    return pixels.astype(np.uint16) if is_png and pixels.dtype == np.int32 else pixels


def full_range(path: PathLike, pixels: Shaped[np.ndarray, "..."]) -> int:
    """Return the largest value of 8 and 16 bit pixels: 255 or 65535. DataError for other whole
    numbers, whose full range is not known."""
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise DataError(
            f"{path}: whole numbers of type {pixels.dtype} have no known full range: save them as "
            "uint8 or uint16, or as line integrals in float32"
        )
    return int(np.iinfo(pixels.dtype).max)
