"""The splatted L1 of a real CT against ray casting of its own mask and bone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, transforms
from dartjax.image import Volume
from dartjax.render import SplatOptions, drr, label_volume, splat, two_compartment
from dartjax.ssm import build

VIEWS = {
    "AP": transforms.view_rotation("AP"),
    "LAT_L": transforms.view_rotation("LAT_L"),
    "oblique": transforms.carm_rotation(0.7, 0.2),
}


@functools.cache
def real_l1():
    """Surface (dense registration of the template), mask volume and bone volume."""
    try:
        case = data.example_case()
    except data.OfflineError as error:
        pytest.skip(str(error))
    label = data.label_of("L1")
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    truth = data.surface_of(case.labels, affine, label)
    model = data.load_shape_model("L1")
    vertices, faces = np.asarray(truth.vertices, np.float64), np.asarray(truth.faces)
    dense = build.dense_landmarks(model, vertices, faces)
    mask = Volume(jnp.asarray(case.labels == label, jnp.float32), case.ct.world_from_voxel)
    return (
        dense.vertices,
        model.faces,
        label_volume(mask, case.labels, label),
        label_volume(case.ct, case.labels, label),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", VIEWS)
def test_splat_is_the_ray_cast_of_the_same_bone(name):
    vertices, faces, mask, bone = real_l1()
    center = jnp.mean(vertices, axis=0)
    view = camera.region_around(
        camera.from_carm(VIEWS[name], center), center, width_mm=100.0, num_pixels=160
    )
    render = jax.jit(lambda v: splat(v, faces, view, SplatOptions(window=19)))
    channels = render(vertices)
    thickness, attenuation = (drr(v, view, num_samples=200) for v in (mask, bone))
    assert correlation(channels.thickness, thickness) >= 0.985
    assert correlation(two_compartment(channels), attenuation) >= 0.97
    # A thin shell alone, what splatting vertices gives, does not look like the bone.
    assert correlation(channels.shell, attenuation) < 0.9
    ratio = float(jnp.sum(channels.thickness) / jnp.sum(thickness))
    assert ratio == pytest.approx(1.0, abs=0.03)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]
