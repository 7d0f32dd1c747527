"""Describe an X-ray image: size, bits, range, and the possible meaning of its pixels."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dartjax._errors import DataError
from dartjax._pixels import full_range, read_pixels
from dartjax.cli.facts._facts import FileFacts, rounded

# The same as in the loader of radiographs (docs/input_formats.md).
FULL_SCALE = 8.0
OPEN_BEAM_PERCENTILE = 99.5
MAX_LINE_INTEGRAL = 50.0
COLOR_TOLERANCE = 0.02
_MIN_SIDE = 16
_FAINT = 1.5  # line integrals of a torso reach 3 to 8
_CLEAR = 0.05  # least difference of middle and border, as a share of the range


def xray_facts(path: Path) -> FileFacts:
    """Describe a PNG, TIFF or .npy file. DataError if it is not a readable image."""
    pixels, about = _read(path)
    facts = {**about, "image_size": list(pixels.shape[:2]), "pixel_type": str(pixels.dtype)}
    gray, problem = _gray(pixels)
    if gray is None:
        return FileFacts(str(path), "X-ray image", facts, [f"cannot be used: {problem}"])
    facts |= _range(gray)
    problem = _unusable(gray)
    if problem:
        return FileFacts(str(path), "X-ray image", facts, [f"cannot be used: {problem}"])
    facts |= _pixels(gray)
    height, width = gray.shape
    notes = [
        "image_size is [height, width]; the file has no geometry: give a camera in "
        f'--cameras=cameras.json with "image_size": [{height}, {width}]',
    ]
    return FileFacts(str(path), "X-ray image", facts, _warnings(facts, about), notes)


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    pixels = read_pixels(path)
    if path.suffix.lower() == ".npy":
        return pixels, {"format": "NumPy array"}
    try:
        with Image.open(path) as image:
            about = {"format": image.format, "frames": getattr(image, "n_frames", 1)}
    except Exception:  # a TIFF that Pillow does not read; its parser raises anything
        about = {"format": path.suffix[1:].upper()}
    return pixels, about


def _gray(pixels: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return the grey image, or None and the problem."""
    if not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
        return None, f"pixels of type {pixels.dtype} are not X-ray intensities"
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4):
        channels = pixels[..., : 1 if pixels.shape[2] < 3 else 3]
        full = np.iinfo(pixels.dtype).max if _is_whole(pixels) else np.abs(channels).max()
        if np.ptp(channels.astype(np.float64), axis=2).max() > COLOR_TOLERANCE * full:
            return None, "colour image, but an X-ray is grey: save it as greyscale"
        pixels = channels[..., 0]
    if pixels.ndim != 2 or min(pixels.shape) < _MIN_SIDE:
        return None, f"one grey image of at least {_MIN_SIDE} x {_MIN_SIDE} pixels is needed"
    return pixels, ""


def _unusable(gray: np.ndarray) -> str:
    if not np.isfinite(gray).all():
        return f"{int((~np.isfinite(gray)).sum())} pixels are NaN or infinite"
    if gray.min() == gray.max():
        return f"every pixel is {gray.min():g}"
    return ""


def _range(gray: np.ndarray) -> dict[str, Any]:
    finite = gray[np.isfinite(gray)]
    if not finite.size:
        return {}
    low, middle, high = np.percentile(finite, [1.0, 50.0, 99.0])
    return {
        "bits": 8 * gray.dtype.itemsize,
        "minimum": rounded(finite.min(), 4),
        "maximum": rounded(finite.max(), 4),
        "percentiles_1_50_99": rounded([low, middle, high], 4),
    }


def _pixels(gray: np.ndarray) -> dict[str, Any]:
    """Return the likely value of --pixels, the reason, and the result of every possible value."""
    readings = [reading for reading in (_as_line_integral(gray), _as_intensity(gray)) if reading]
    possible = [reading["pixels"] for reading in readings]
    likely, why = _polarity(gray)
    if len(possible) == 1:
        likely, why = possible[0], "the other reading does not allow these values"
    elif not possible:
        likely, why = None, "neither reading allows these values"
    return {"pixels": likely, "pixels_because": why, "readings": readings}


def _as_line_integral(gray: np.ndarray) -> dict[str, Any] | None:
    """Describe the image read with --pixels=line_integral; None if that is impossible."""
    low, high = float(gray.min()), float(gray.max())
    if _is_whole(gray):
        full = _full_range(gray)
        if full is None:
            return None
        possible = low >= 0.0
        scale, how = FULL_SCALE / full, f"value x {FULL_SCALE:g} / {full}"
    else:
        possible = low >= -1.0 and high <= MAX_LINE_INTEGRAL
        scale, how = 1.0, "value as it is"
    if not possible:
        return None
    integrals = {"from": rounded(low * scale), "to": rounded(high * scale)}
    return {"pixels": "line_integral", "line_integral": how, **integrals}


def _as_intensity(gray: np.ndarray) -> dict[str, Any] | None:
    """Describe the image read with --pixels=intensity; None if that is impossible."""
    beam, low = float(np.percentile(gray, OPEN_BEAM_PERCENTILE)), float(gray.min())
    if low < 0.0 or beam <= 0.0:
        return None
    least = 0.5 if _is_whole(gray) else float(gray[gray > 0].min())
    most = -np.log(min(max(low, least), beam) / beam)
    how = f"-log(value / {beam:.6g}), its {OPEN_BEAM_PERCENTILE:g}th percentile"
    return {"pixels": "intensity", "line_integral": how, "from": 0.0, "to": rounded(most)}


def _polarity(gray: np.ndarray) -> tuple[str | None, str]:
    """Decide whether bone or air is bright.

    The middle of an X-ray of a spine attenuates more than its border.
    """
    height, width = gray.shape
    rows, columns = max(height // 20, 1), max(width // 20, 1)
    border = np.concatenate(
        [
            gray[:rows].ravel(),
            gray[-rows:].ravel(),
            gray[:, :columns].ravel(),
            gray[:, -columns:].ravel(),
        ]
    )
    middle = gray[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    low, high = np.percentile(gray, [1.0, 99.0])
    difference = (float(np.median(middle)) - float(np.median(border))) / max(high - low, 1e-12)
    if difference > _CLEAR:
        return "line_integral", "the middle is brighter than the border, so bone is bright"
    if difference < -_CLEAR:
        return "intensity", "the middle is darker than the border, so air is bright"
    return None, "not clear from the values: line_integral if bone is bright, intensity if air is"


def _warnings(facts: dict[str, Any], about: dict[str, Any]) -> list[str]:
    found = []
    if about.get("frames", 1) > 1:
        found.append(f"{about['frames']} frames, of which only the first is read")
    highest = {reading["pixels"]: reading["to"] for reading in facts["readings"]}
    if not highest:
        found.append("cannot be used: the values are neither line integrals nor intensities")
    elif facts["pixels"] == "line_integral" and highest["line_integral"] < _FAINT:
        found.append(
            f"as line integrals the values reach only {highest['line_integral']:g}; a torso "
            "reaches 3 to 8: stretch them, or give them as floats in a .npy"
        )
    if facts["pixels"] == "intensity":
        found.append(
            "the open-beam intensity is estimated from the image: part of it must show air"
        )
    return found


def _is_whole(pixels: np.ndarray) -> bool:
    return np.issubdtype(pixels.dtype, np.integer)


def _full_range(pixels: np.ndarray) -> int | None:
    """Return 255 or 65535; None for whole numbers without a known full range."""
    try:
        return full_range("", pixels)
    except DataError:
        return None
