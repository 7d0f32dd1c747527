import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

from dartjax import camera, data, transforms

SIZE = (24, 32)


def line_integrals(size=SIZE):
    v, u = np.mgrid[: size[0], : size[1]]
    image = 4.0 * np.exp(-((v - 12) ** 2 + (u - 16) ** 2) / 60.0)
    return np.where(image < 0.05, 0.0, image)


def save(path, pixels):
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def carm(size):
    return camera.from_carm(transforms.view_rotation("AP"), jnp.zeros(3), image_size=size)


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_float_line_integrals_are_kept(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", np.float32(line_integrals()))
    np.testing.assert_allclose(data.load_radiograph(path), line_integrals(), atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_stand_for_0_to_8(tmp_path, suffix, dtype):
    full = np.iinfo(dtype).max
    path = save(tmp_path / f"a.{suffix}", np.rint(line_integrals() * full / 8).astype(dtype))
    np.testing.assert_allclose(data.load_radiograph(path), line_integrals(), atol=4.1 / full)


@pytest.mark.parametrize("open_beam", [None, 40000.0])
def test_raw_intensity_becomes_line_integrals(tmp_path, open_beam):
    counts = np.rint(40000.0 * np.exp(-line_integrals())).astype(np.uint16)
    path = save(tmp_path / "a.png", counts)
    image = data.load_radiograph(path, "intensity", open_beam=open_beam)
    np.testing.assert_allclose(image, line_integrals(), atol=1e-3)


def test_pixels_without_counts_stay_finite(tmp_path):
    counts = np.rint(1000.0 * np.exp(-line_integrals())).astype(np.uint16)
    counts[3, 4] = 0
    image = data.load_radiograph(save(tmp_path / "a.png", counts), "intensity", open_beam=1000.0)
    assert float(image[3, 4]) == pytest.approx(np.log(2000.0), rel=1e-5)


def test_grey_stored_as_rgb_or_with_alpha(tmp_path):
    grey = np.rint(line_integrals() * 30).astype(np.uint8)
    plain = data.load_radiograph(save(tmp_path / "l.png", grey))
    rgb = data.load_radiograph(save(tmp_path / "rgb.png", np.stack([grey] * 3, -1)))
    alpha = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
    rgba = data.load_radiograph(save(tmp_path / "rgba.png", alpha))
    np.testing.assert_array_equal(plain, rgb)
    np.testing.assert_array_equal(plain, rgba)


def bad_images():
    image = np.float32(line_integrals())
    nan = image.copy()
    nan[2, 3:5] = np.nan
    color = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    return [
        ("nan.npy", nan, "line_integral", "2 pixels are NaN"),
        ("black.png", np.zeros(SIZE, np.uint8), "intensity", r"black \(all 0\)"),
        ("flat.png", np.full(SIZE, 7, np.uint8), "line_integral", "constant"),
        ("color.png", color, "line_integral", "colour"),
        ("stack.npy", np.stack([image] * 8), "line_integral", r"\(8, 24, 32\)"),
        ("counts.npy", 1000 * image, "line_integral", 'kind "intensity"'),
        ("minus.npy", image - 2, "intensity", "negative"),
        ("minus.npy", image - 2, "line_integral", "not line integrals"),
        ("words.npy", np.full(SIZE, "a"), "line_integral", "not X-ray intensities"),
    ]


@pytest.mark.parametrize(("name", "pixels", "kind", "message"), bad_images())
def test_images_that_cannot_be_used(tmp_path, name, pixels, kind, message):
    path = save(tmp_path / name, pixels)
    with pytest.raises(data.DataError, match=message):
        data.load_radiograph(path, kind)


def test_unreadable_files(tmp_path):
    with pytest.raises(data.DataError, match="no such file"):
        data.load_radiograph(tmp_path / "a.png")
    path = save(tmp_path / "a.png", np.rint(line_integrals() * 30).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(data.DataError, match="truncated or damaged"):
        data.load_radiograph(path)
    (tmp_path / "a.dcm").write_text("x")
    with pytest.raises(data.DataError, match=r"read from \.png"):
        data.load_radiograph(tmp_path / "a.dcm")


def test_open_beam_must_be_positive(tmp_path):
    path = save(tmp_path / "a.npy", np.float32(line_integrals()))
    with pytest.raises(data.DataError, match="open-beam"):
        data.load_radiograph(path, "intensity", open_beam=0.0)


def test_images_of_different_sizes_with_their_own_cameras(tmp_path):
    sizes = [(24, 32), (30, 20)]
    paths = [
        save(tmp_path / f"{i}.npy", np.float32(line_integrals(s))) for i, s in enumerate(sizes)
    ]
    loaded = data.load_radiographs(paths, [carm(size) for size in sizes])
    assert [r.image.shape for r in loaded] == sizes
    assert [r.camera.image_size for r in loaded] == sizes


def test_image_that_does_not_match_its_camera(tmp_path):
    sizes = [(24, 32), (30, 20)]
    paths = [
        save(tmp_path / f"{i}.npy", np.float32(line_integrals(s))) for i, s in enumerate(sizes)
    ]
    with pytest.raises(data.DataError, match=r"camera 2 is for.*images of different sizes"):
        data.load_radiographs(paths, [carm(sizes[0]), carm(sizes[0])])
    with pytest.raises(data.DataError, match="2 images but 1 cameras"):
        data.load_radiographs(paths, [carm(sizes[0])])


DEEP = (np.arange(24 * 32).reshape(SIZE) * 70 + 5000).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_inverted(tmp_path, dtype):
    pixels = (DEEP >> 8 if dtype == np.uint8 else DEEP).astype(dtype)
    full = int(np.iinfo(dtype).max)
    tifffile.imwrite(tmp_path / "a.tif", full - pixels, photometric="miniswhite")
    image = data.load_radiograph(tmp_path / "a.tif")
    np.testing.assert_allclose(image, pixels * 8.0 / full, rtol=1e-6)


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def save_png(path, pixels, color):
    """A 16 bit PNG with several channels, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_16_bit_grey_with_alpha_keeps_its_depth(tmp_path):
    alpha = np.full_like(DEEP, 65535)
    path = save_png(tmp_path / "a.png", np.stack([DEEP, alpha], -1), 4)
    np.testing.assert_allclose(data.load_radiograph(path), DEEP * 8.0 / 65535, rtol=1e-6)


def test_16_bit_colour_png_is_refused(tmp_path):
    path = save_png(tmp_path / "a.png", np.stack([DEEP] * 3, -1), 2)
    with pytest.raises(data.DataError, match="save it as 16 bit greyscale"):
        data.load_radiograph(path)


def test_16_bit_grey_tiff_in_three_channels_keeps_its_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([DEEP] * 3, -1), photometric="rgb")
    image = data.load_radiograph(tmp_path / "a.tif")
    np.testing.assert_allclose(image, DEEP * 8.0 / 65535, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_of_other_sizes(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", line_integrals().astype(dtype))
    image = data.load_radiograph(tmp_path / "a.tif")
    np.testing.assert_allclose(image, line_integrals(), atol=4e-3)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_whole_numbers_without_a_known_full_range(tmp_path, dtype, suffix):
    path, pixels = tmp_path / f"a.{suffix}", (DEEP // 4).astype(dtype)
    np.save(path, pixels) if suffix == "npy" else tifffile.imwrite(path, pixels)
    with pytest.raises(data.DataError, match="no known full range"):
        data.load_radiograph(path)
    beam = float(pixels.max())
    expected = -np.log(pixels / beam)  # intensities need no full range
    image = data.load_radiograph(path, "intensity", open_beam=beam)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_twelve_bits_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP)
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    at = raw.index(struct.pack("<HHIH", 258, 3, 1, 16))  # BitsPerSample
    raw[at + 8] = 12
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.raises(data.DataError, match="12 bits per pixel"):
        data.load_radiograph(tmp_path / "a.tif")


def test_archive_named_as_array_and_too_large_image(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", a=DEEP)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(data.DataError, match="several arrays"):
        data.load_radiograph(tmp_path / "a.npy")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.DataError, match="crop or reduce"):
        data.load_radiograph(save(tmp_path / "a.png", DEEP))


def test_damage_inside_a_png_is_found(tmp_path):
    """Pillow does not compare the checksums of the pixels."""
    height, width = DEEP.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 0)), chunk(b"IEND", b"")]
    content = bytearray(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    content[len(content) // 2] ^= 8
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(data.DataError, match="wrong checksum of the part b'IDAT'"):
        data.load_radiograph(tmp_path / "a.png")


def test_another_image_named_png(tmp_path):
    Image.fromarray((DEEP >> 8).astype(np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    with pytest.raises(data.DataError, match="its content is not PNG"):
        data.load_radiograph(tmp_path / "a.png")


def test_size_that_an_array_cannot_have(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 20), np.float32))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(20, 20), }", b"(9999999, 9999999), }")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(data.DataError, match="not a readable image or array"):
        data.load_radiograph(tmp_path / "a.npy")
