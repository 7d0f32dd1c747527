"""Vertebra with known pose and shape, and its isolated observations in two views."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import camera, data, ssm, transforms
from dartjax.image import Radiograph
from dartjax.registration import FitOptions, Scale, crop_cameras, observe
from dartjax.render import SplatOptions, local_gradient_ncc, splat, two_compartment

WIDTH_MM, PIXELS = 110.0, 64
QUICK = FitOptions(
    similarity=(functools.partial(local_gradient_ncc, window=3),),
    scales=(Scale(64, 1.2, 40, 0.08),),
    crop_width_mm=WIDTH_MM,
)
TRUE_POSE = transforms.SE3.from_rotation_and_translation(
    transforms.SO3.exp(jnp.array([0.3, -0.1, 0.2])), jnp.array([20.0, -30.0, 100.0])
)
TRUE_COEFFICIENTS = jnp.zeros(15).at[:4].set(jnp.array([0.8, -0.6, 0.5, 0.7]))


@functools.cache
def model():
    return data.load_shape_model("T9")


def views(*primary_deg):
    center = TRUE_POSE.translation()
    return [
        camera.from_carm(transforms.carm_rotation(np.deg2rad(a), 0.1), center) for a in primary_deg
    ]


def disturbed_start():
    return transforms.perturb(
        TRUE_POSE, jnp.array([0.06, -0.05, 0.04]), jnp.array([4.0, -3.0, 2.0])
    )


def observations(*primary_deg, landmarks=True, masks=True):
    """Noise-free observations of the true vertebra alone."""
    shape = ssm.posed(model(), TRUE_POSE, TRUE_COEFFICIENTS)
    start = disturbed_start()
    center = start.apply(jnp.mean(model().mean_shape, axis=0))
    crops = crop_cameras(views(*primary_deg), center, width_mm=WIDTH_MM, num_pixels=PIXELS)
    render = jax.jit(lambda c: splat(shape, model().faces, c, SplatOptions(window=9)))
    channels = [render(crop) for crop in crops]
    return observe(
        [Radiograph(two_compartment(x), crop) for x, crop in zip(channels, crops, strict=True)],
        crops,
        masks=np.stack([np.asarray(x.silhouette) for x in channels]) if masks else None,
        landmarks_world=ssm.landmarks(model(), shape) if landmarks else None,
    )


def mean_vertex_error(pose, coefficients):
    fitted = ssm.posed(model(), pose, coefficients)
    truth = ssm.posed(model(), TRUE_POSE, TRUE_COEFFICIENTS)
    return float(jnp.mean(jnp.linalg.norm(fitted - truth, axis=1)))
