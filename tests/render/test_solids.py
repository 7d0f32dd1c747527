import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.image import Volume
from dartjax.render import drr, project_solids, solid_masks, vertebra_solids

SHAPE = (40, 36, 60)
project = jax.jit(project_solids, static_argnames="num_samples")
plain = jax.jit(lambda volume, cam: drr(volume, cam, num_samples=1500))


def make_camera(rotation, size=(75, 61), pixel=2.2):
    return camera.from_carm(
        rotation,
        jnp.zeros(3),
        sdd=1000.0,
        source_to_isocenter=600.0,
        pixel_spacing=pixel,
        image_size=size,
    )


def oblique_affine(spacing=(1.0, 1.5, 0.8)):
    rotation = np.asarray(transforms.carm_rotation(0.3, 0.2).as_matrix())
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def labelled():
    """Three touching ellipsoids, one of them cut by the border of the grid."""
    labels = np.zeros(SHAPE, np.uint8)
    x, y, z = np.indices(SHAPE)
    for label, height in ((20, 50), (21, 30), (22, 3)):
        inside = ((x - 20) / 15) ** 2 + ((y - 17) / 9) ** 2 + ((z - height) / 11) ** 2 < 1
        labels[inside & (labels == 0)] = label
    return labels, oblique_affine()


VIEWS = [transforms.view_rotation("AP"), transforms.view_rotation("LAT_L")]
VIEWS += [transforms.carm_rotation(0.7, -0.2)]


@pytest.mark.parametrize("view", range(3))
def test_thickness_is_the_line_integral_of_each_label(view):
    labels, affine = labelled()
    cam = make_camera(VIEWS[view])
    solids = vertebra_solids(labels, affine, [22, 20, 21])
    thickness = np.asarray(project(solids, cam))
    assert thickness.shape == (3, 75, 61)
    for found, label in zip(thickness, (22, 20, 21), strict=True):
        alone = Volume(jnp.asarray(labels == label, jnp.float32), jnp.asarray(affine, jnp.float32))
        expected = np.asarray(plain(alone, cam))
        assert expected.max() > 10.0
        np.testing.assert_allclose(found, expected, atol=0.12)
        assert np.abs(found - expected).mean() < 0.01
        assert ((found > 0.5) != (expected > 0.5)).sum() <= 4


def test_box_has_its_chord():
    labels = np.zeros((30, 30, 30), int)
    labels[5:25, 8:22, 10:20] = 1
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -14.5
    cam = make_camera(transforms.view_rotation("AP"), size=(3, 3), pixel=1.0)
    thickness = project(vertebra_solids(labels, affine, [1]), cam, num_samples=500)
    assert float(thickness[0, 1, 1]) == pytest.approx(14.0, abs=1e-3)


def test_masks_agree_with_projected_voxels():
    labels, affine = labelled()
    cam = make_camera(VIEWS[2])
    mask = np.asarray(solid_masks(project(vertebra_solids(labels, affine, [22, 20, 21]), cam)))[2]
    voxels = np.argwhere(labels == 21) @ affine[:3, :3].T + affine[:3, 3]
    u, v = np.asarray(camera.project(cam, jnp.asarray(voxels, jnp.float32))).T
    hit = np.zeros(cam.image_size, bool)
    hit[v.astype(int), u.astype(int)] = True
    assert (hit & ~mask).sum() <= 0.01 * mask.sum()
    assert mask.sum() < 1.25 * hit.sum()


def test_what_is_outside_the_detector_is_zero_and_a_half_visible_one_is_cut():
    labels, affine = labelled()
    solids = vertebra_solids(labels, affine, [22, 20, 21])
    whole = make_camera(VIEWS[0])
    part = camera.crop(whole, jnp.array([20.0, 30.0]), (20, 24))
    found, expected = (np.asarray(project(solids, cam)) for cam in (part, whole))
    np.testing.assert_allclose(found, expected[:, 30:50, 20:44], atol=1e-3)
    away = camera.crop(whole, jnp.array([900.0, 0.0]), (20, 24))
    assert not np.any(project(solids, away))


def test_vmap_over_views():
    labels, affine = labelled()
    solids = vertebra_solids(labels, affine, [22, 20, 21])
    cams = [make_camera(view) for view in VIEWS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cams)
    batch = jax.jit(jax.vmap(lambda cam: project_solids(solids, cam)))(stacked)
    for found, cam in zip(batch, cams, strict=True):
        np.testing.assert_allclose(found, project(solids, cam), atol=1e-3)


def test_bad_labels_are_rejected():
    labels, affine = labelled()
    with pytest.raises(ValueError, match="label 9 is not in"):
        vertebra_solids(labels, affine, [20, 9])
    with pytest.raises(ValueError, match="label_list is empty"):
        vertebra_solids(labels, affine, [])
