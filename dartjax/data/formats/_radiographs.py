"""Read radiographs (PNG, TIFF or NumPy files) as line integrals.

A line-integral image is dimensionless and 0 where nothing attenuates, so bone is bright. A
detector's raw intensity I becomes -log(I / I0), with I0 the intensity of the open beam.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num, Shaped

from dartjax._arrays import PathLike
from dartjax._errors import DataError
from dartjax._pixels import full_range, read_pixels
from dartjax._types import Image
from dartjax.anatomy import unknown_name
from dartjax.camera import Camera
from dartjax.image import Radiograph

Kind = Literal["line_integral", "intensity"]
OPEN_BEAM_PERCENTILE = 99.5
FULL_SCALE = 8.0
MAX_LINE_INTEGRAL = 50.0
_COLOR_TOLERANCE = 0.02  # of full scale, between the channels of a grey image saved as RGB


def load_radiograph(
    path: PathLike, kind: Kind = "line_integral", *, open_beam: float | None = None
) -> Image:
    """Load line integrals (h, w), float32, from an 8 or 16 bit PNG, a TIFF or a .npy file.

    kind "line_integral": floats are used unchanged; uint8 and uint16 from 0 to the largest of
    their type (255 or 65535) represent 0 to 8.
    kind "intensity" (air is bright): -log(I / I0) with I0 = `open_beam`, in the file's
    units, or else the 99.5th percentile of the image; zero counts are replaced by one half.

    DataError for a missing or damaged file, a colour image, NaN, a constant image, values that
    are not possible for the kind, and line integrals in other whole numbers (int64), whose full
    range is not known.
    """
    if kind not in get_args(Kind):
        raise DataError(unknown_name("kind of radiograph", str(kind), list(get_args(Kind))))
    pixels = _gray(path, read_pixels(path))
    _check_pixels(path, pixels)
    image = (
        _from_intensity(path, pixels, open_beam)
        if kind == "intensity"
        else _from_line_integral(path, pixels)
    )
    return jnp.asarray(image, jnp.float32)


def load_radiographs(
    paths: Sequence[PathLike],
    cameras: Sequence[Camera],
    kind: Kind = "line_integral",
    *,
    open_beam: float | None = None,
) -> list[Radiograph]:
    """Load one radiograph per path with its camera, in the same order.

    Images may differ in size. DataError if an image does not have the size of its camera.
    """
    if len(paths) != len(cameras):
        raise DataError(
            f"{len(paths)} images but {len(cameras)} cameras: give one camera per image, in the "
            "same order"
        )
    images = [load_radiograph(path, kind, open_beam=open_beam) for path in paths]
    for number, (path, image, camera) in enumerate(zip(paths, images, cameras, strict=True), 1):
        if image.shape != camera.image_size:
            sizes = sorted({image.shape for image in images})
            different = f" (images of different sizes: {sizes})" if len(sizes) > 1 else ""
            raise DataError(
                f"{path}: the image is {image.shape} (height, width) but camera {number} is for "
                f"{camera.image_size}{different}: correct image_size and K; do not resize the image"
            )
    return [Radiograph(image, camera) for image, camera in zip(images, cameras, strict=True)]


def _gray(path: PathLike, pixels: Shaped[np.ndarray, "..."]) -> Num[np.ndarray, "h w"]:
    if not (np.issubdtype(pixels.dtype, np.number) and not np.iscomplexobj(pixels)):
        raise DataError(f"{path}: pixels of type {pixels.dtype} are not X-ray intensities")
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4):
        channels = pixels[..., : 1 if pixels.shape[2] < 3 else 3]  # alpha is dropped
        spread = np.ptp(channels.astype(np.float64), axis=2).max()
        full = np.iinfo(pixels.dtype).max if _is_integer(pixels) else np.abs(channels).max()
        if spread > _COLOR_TOLERANCE * full:
            raise DataError(f"{path}: colour image, but an X-ray is grey: save it as greyscale")
        pixels = channels[..., 0]
    if pixels.ndim != 2 or min(pixels.shape) < 16:
        raise DataError(
            f"{path}: one grey image of at least 16 x 16 pixels is needed, not {pixels.shape}"
        )
    return pixels


def _check_pixels(path: PathLike, pixels: Num[np.ndarray, "h w"]) -> None:
    if not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise DataError(f"{path}: {count} pixels are NaN or infinite: repair or fill them")
    if pixels.min() == pixels.max():
        what = "black (all 0)" if pixels.min() == 0 else f"constant ({pixels.min():g} everywhere)"
        raise DataError(f"{path}: the image is {what}: it cannot be used for registration")


def _from_line_integral(path: PathLike, pixels: Num[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    if _is_integer(pixels):
        if pixels.min() < 0:
            raise DataError(f"{path}: line integrals must not be negative")
        return pixels * (FULL_SCALE / full_range(path, pixels))
    if pixels.max() > MAX_LINE_INTEGRAL or pixels.min() < -1.0:
        raise DataError(
            f"{path}: values {pixels.min():g} to {pixels.max():g} are not line integrals (a body "
            'gives 0 to 10): for a raw image use kind "intensity"'
        )
    return pixels.astype(np.float64)


def _from_intensity(
    path: PathLike, pixels: Num[np.ndarray, "h w"], open_beam: float | None
) -> Float[np.ndarray, "h w"]:
    if pixels.min() < 0:
        raise DataError(f"{path}: negative intensities: use kind line_integral, or repair them")
    beam = np.percentile(pixels, OPEN_BEAM_PERCENTILE) if open_beam is None else open_beam
    if not beam > 0:
        raise DataError(f"{path}: the open-beam intensity I0 is {beam:g}: give open_beam above 0")
    least = 0.5 if _is_integer(pixels) else pixels[pixels > 0].min()
    return -np.log(np.clip(pixels, least, beam) / beam)


def _is_integer(pixels: Num[np.ndarray, "..."]) -> bool:
    return np.issubdtype(pixels.dtype, np.integer)
