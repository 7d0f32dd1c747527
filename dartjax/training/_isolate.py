"""Use of the isolation network: predicted X-rays that show one vertebra alone."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dartjax import transforms
from dartjax._types import Coefficients, Image, Vertices
from dartjax.camera import Camera
from dartjax.models import Hint, Isolated, IsolationNet
from dartjax.observations import Observations
from dartjax.render import XrayChannels, splat, two_compartment
from dartjax.ssm import ShapeModel, posed
from dartjax.training._isolation import ISOLATION_SPLATS


def isolate_vertebra(
    net: IsolationNet,
    params: PyTree,
    model: ShapeModel,
    observations: Observations,
    pose: transforms.SE3,
    coefficients: Coefficients,
) -> Isolated:
    """Isolate one vertebra in every view (leading axis), given an initial estimate of its pose and
    shape. The crops must have the width of the training crops (110 mm). Pure; vmap over cases."""
    estimate: Vertices = posed(model, pose, coefficients)

    def one(view: Camera, image: Image, mask: Image) -> Isolated:
        rendered = splat(estimate, model.faces, view, ISOLATION_SPLATS)
        hint = Hint(mask, rendered.thickness, rendered.shell, rendered.silhouette)
        return net.apply({"params": params}, image, hint)  # pyright: ignore[reportReturnType]

    return jax.vmap(one)(observations.cameras, observations.images, observations.masks)


def isolated_observations(observations: Observations, isolated: Isolated) -> Observations:
    """Replace the radiographs by the isolated images: the line integrals that a render of the
    vertebra would give (`two_compartment`), clipped at 0 from below."""

    def image(thickness: Image, shell: Image) -> Image:
        channels = XrayChannels(shell, thickness, jnp.zeros_like(shell))
        return jnp.maximum(two_compartment(channels), 0.0)

    images = jax.vmap(image)(isolated.thickness, isolated.shell)
    return dataclasses.replace(observations, images=images)
