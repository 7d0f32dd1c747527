"""Fit of pose and shape to landmarks alone: maximum a posteriori by Levenberg-Marquardt."""

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._least_squares import levenberg_marquardt
from dartjax.observations import Observations, without_ignored
from dartjax.registration._objective import (
    FitParameters,
    landmark_residuals,
    posed_vertices,
    zero_parameters,
)
from dartjax.ssm import ShapeModel, landmarks

# Standard deviations of the error of a start, per axis.
_START_RAD, _START_MM = 0.25, 10.0


def fit_landmarks(
    model: ShapeModel, observations: Observations, start: transforms.SE3, *, num_steps: int = 12
) -> FitParameters:
    """Fit pose and shape to the landmarks of all valid views; a landmark may be seen in one view.

    Minimises sum |r / sigma|^2 + |b|^2 (reprojection errors r, shape coefficients b) plus the
    squares of turn and shift from the start over 0.25 rad and 10 mm per axis, because landmarks of
    a single view hardly determine the depth. Returns the start if there are no landmarks.
    """
    observations = without_ignored(observations)
    flat, unravel = ravel_pytree(zero_parameters(len(model.modes)))

    def residual(x: Float[Array, " unknown"]) -> Float[Array, " residual"]:
        parameters = unravel(x)
        points = landmarks(model, posed_vertices(model, start, parameters))
        reprojection = landmark_residuals(points, observations)
        turn = parameters.rotation * (FitParameters.ROTATION_UNIT / _START_RAD)
        shift = parameters.translation * (FitParameters.TRANSLATION_UNIT / _START_MM)
        return jnp.concatenate([reprojection.reshape(-1), turn, shift, parameters.coefficients])

    return unravel(levenberg_marquardt(residual, flat, num_steps=num_steps).x)
