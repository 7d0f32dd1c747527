"""Contours in the (u, v) convention and radiographs as PNG."""

import io

import numpy as np
import pytest
from PIL import Image

from dartjax import report


def test_a_contour_runs_along_the_pixel_edges_of_its_mask():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 12:26] = True  # rows 4..8, columns 12..25: edges at v = 4, 9 and u = 12, 26
    (line,) = report.silhouette_contours(mask)
    np.testing.assert_allclose(line.min(0), [12, 4])
    np.testing.assert_allclose(line.max(0), [26, 9])
    np.testing.assert_allclose(line[0], line[-1])


def test_a_soft_disc_gives_its_own_radius_and_centre():
    v, u = np.mgrid[0:64, 0:80] + 0.5  # pixel centres
    center, radius = np.array([41.3, 30.8]), 17.4
    distance = np.hypot(u - center[0], v - center[1])
    (line,) = report.silhouette_contours(np.clip(0.5 + (radius - distance) / 4.0, 0.0, 1.0))
    np.testing.assert_allclose(np.hypot(*(line - center).T), radius, atol=0.02)


def test_a_mask_cut_by_the_border_is_closed_there():
    mask = np.zeros((10, 10))
    mask[:, :4] = 1.0
    (line,) = report.silhouette_contours(mask)
    np.testing.assert_allclose(line[0], line[-1])
    np.testing.assert_allclose([line.min(0), line.max(0)], [[0, 0], [4, 10]])


def test_an_empty_mask_has_no_contour():
    assert report.silhouette_contours(np.zeros((8, 8))) == []


def _pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


def test_contours_are_drawn_where_they_are_in_the_image():
    image = np.random.default_rng(0).random((200, 300)).astype(np.float32)
    square = np.array([[90.0, 50.0], [210.0, 50.0], [210.0, 150.0], [90.0, 150.0], [90.0, 50.0]])
    png = report.radiograph_figure(
        image, [report.Contour([square], "#ff0000", "truth")], width_px=900
    )
    pixels = _pixels(png)
    assert pixels.shape[:2] == (600, 900)  # three figure pixels per image pixel
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    red[:100, 600:] = False  # the legend's own line
    rows, columns = np.nonzero(red)
    np.testing.assert_allclose([columns.min(), columns.max()], [270, 630], atol=3)
    np.testing.assert_allclose([rows.min(), rows.max()], [150, 450], atol=3)


def test_a_contour_outside_the_image_does_not_move_it():
    image = np.zeros((100, 100), np.float32)
    image[:, 50:] = 1.0
    far = np.array([[-80.0, -40.0], [150.0, -40.0], [150.0, 170.0]])
    plain = _pixels(report.radiograph_figure(image, width_px=400))
    with_far = report.radiograph_figure(
        image, [report.Contour([far], "#ff0000", "far")], width_px=400
    )
    column = 260, 150  # a place without legend, note and contour
    np.testing.assert_allclose(_pixels(with_far)[column], plain[column])


@pytest.mark.parametrize(("bone", "brighter"), [("bright", True), ("dark", False)])
def test_bone_is_shown_as_stated(bone, brighter):
    image = np.zeros((100, 100), np.float32)
    image[30:70, 30:70] = 3.0
    image[0, 0] = np.nan
    pixels = _pixels(report.radiograph_figure(image, bone=bone, width_px=400))
    assert (pixels[200, 200, 0] > pixels[40, 200, 0]) is np.bool_(brighter)


def test_a_title_adds_room_above_the_image():
    image = np.zeros((100, 100), np.float32)
    titled = _pixels(report.radiograph_figure(image, title="AP view", width_px=400))
    assert titled.shape[:2] == (450, 400)
