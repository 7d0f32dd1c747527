import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.training import warps

SHAPE = (120, 160)
POINTS = jnp.array([[40.3, 35.1], [80.0, 60.0], [118.7, 84.2], [52.6, 88.8]])


def blob(point, sigma=3.0):
    """A Gaussian spot at (u, v)."""
    u, v = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    squared = (u - float(point[0])) ** 2 + (v - float(point[1])) ** 2
    return jnp.asarray(np.exp(-0.5 * squared / sigma**2), jnp.float32)


def centroid(image):
    u, v = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    weights = np.asarray(image, np.float64)
    return np.array([(u * weights).sum(), (v * weights).sum()]) / weights.sum()


def rigid(new_from_old):
    return warps.Warp(jnp.linalg.inv(new_from_old), warps.no_displacement(SHAPE))


def affine(**changes):
    amounts = {"shift_px": jnp.zeros(2), "rotation": 0.0, "shear": 0.0, "scale": 1.0} | changes
    return warps.affine_about_center(SHAPE, **amounts)


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [
        ({"shift_px": jnp.array([5.0, -3.0])}, [40.0, 35.0], [45.0, 32.0]),
        ({"scale": 1.1}, [90.0, 60.0], [91.0, 60.0]),
        ({"rotation": np.pi / 2}, [90.0, 60.0], [80.0, 70.0]),  # u turns toward v
        ({"shear": np.arctan(0.5)}, [80.0, 70.0], [85.0, 70.0]),
    ],
)
def test_what_each_part_of_the_affine_does(changes, old, new):
    found = warps.warp_points(jnp.array([old]), rigid(affine(**changes)))
    np.testing.assert_allclose(found[0], new, atol=1e-3)
    center = jnp.array([[80.0, 60.0]])  # all but the shift leave the centre in place
    moved = warps.warp_points(center, rigid(affine(**changes)))
    np.testing.assert_allclose(
        moved[0], center[0] + changes.get("shift_px", jnp.zeros(2)), atol=1e-3
    )


def test_cropping_enlarges_a_window():
    crop = warps.crop_and_resize(SHAPE, share=0.5, place=jnp.array([1.0, 0.0]))
    corners = jnp.array([[80.0, 0.0], [160.0, 60.0]])
    found = warps.warp_points(corners, rigid(crop))
    np.testing.assert_allclose(found, [[0.0, 0.0], [160.0, 120.0]], atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_landmarks_follow_the_image(seed):
    """The centre of mass of a spot moves with its landmark, to a tenth of a pixel."""
    amounts = np.random.default_rng(seed).uniform(-1, 1, 6)
    shift = affine(
        shift_px=jnp.asarray(10 * amounts[:2], jnp.float32),
        rotation=0.09 * amounts[2],
        shear=0.04 * amounts[3],
        scale=1.0 + 0.1 * amounts[4],
    )
    crop = warps.crop_and_resize(SHAPE, share=0.9, place=jnp.full(2, 0.5 + 0.5 * amounts[5]))
    warp = rigid(crop @ shift)
    expected = warps.warp_points(POINTS, warp)
    for point, new in zip(POINTS, expected, strict=True):
        found = centroid(warps.warp_image(blob(point), warp))
        assert np.linalg.norm(found - np.asarray(new)) < 0.1


def test_landmarks_follow_an_elastic_displacement():
    displacement = warps.elastic_displacement(SHAPE, 3.5, key=jax.random.key(0))
    np.testing.assert_allclose(np.linalg.norm(displacement, axis=-1).max(), 3.5, rtol=1e-4)
    warp = warps.Warp(jnp.linalg.inv(affine(rotation=0.05)), displacement)
    expected = warps.warp_points(POINTS, warp)
    moved = [centroid(warps.warp_image(blob(point, 1.5), warp)) for point in POINTS]
    errors = np.linalg.norm(np.array(moved) - np.asarray(expected), axis=1)
    assert errors.max() < 0.2
    still = warps.warp_points(POINTS, rigid(affine(rotation=0.05)))
    assert np.linalg.norm(expected - still, axis=1).max() > 0.5  # the displacement matters


def test_elastic_displacement_is_smooth():
    field = np.asarray(warps.elastic_displacement(SHAPE, 3.5, key=jax.random.key(1)))
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.6


def test_masks_go_where_the_image_goes():
    warp = rigid(affine(rotation=0.08, shift_px=jnp.array([6.0, -4.0])))
    disc = blob(POINTS[1]) > 0.3
    masks = jnp.stack([disc, blob(POINTS[0]) > 0.3]).astype(jnp.float32)
    moved = warps.warp_masks(masks, warp)
    np.testing.assert_allclose(moved[0], warps.warp_image(masks[0], warp), atol=1e-6)
    assert moved.shape == masks.shape and moved.min() >= 0.0 and moved.max() <= 1.0


def test_sources_outside_the_image():
    warp = rigid(affine(shift_px=jnp.array([30.0, 0.0])))
    image = jnp.broadcast_to(jnp.linspace(2.0, 3.0, SHAPE[1])[None], SHAPE)
    np.testing.assert_allclose(warps.warp_image(image, warp)[:, :29], 2.0)
    np.testing.assert_allclose(warps.warp_masks(image[None], warp)[0, :, :29], 0.0)
