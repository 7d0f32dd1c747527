"""Gaussian-process modes: against a dense eigen-decomposition, and their properties."""

import numpy as np
import pytest
from scipy import linalg

from dartjax.data.packaged import _shape_models as data
from dartjax.ssm import build
from dartjax.ssm.build import _gaussian_process as gp
from tests import shapes


def _weights(vertices, faces):
    areas = gp.vertex_areas(vertices, faces)
    return areas / areas.sum()


@pytest.fixture(scope="module")
def template():
    stored = data.load_template()
    return stored.level_shapes["T7"], stored.topology.faces


@pytest.fixture(scope="module")
def small():
    vertices, faces = shapes.torus(20.0, 6.0, (16, 8))
    return np.asarray(vertices, float), np.asarray(faces)


@pytest.mark.parametrize("tangential", [1.0, 0.1])
def test_all_points_give_the_dense_eigen_decomposition(small, tangential):
    """With every vertex as a Nystroem point the modes are those of the full covariance, in the
    inner product that counts motions along the surface less."""
    kernels, count = (gp.Kernel(15.0, 2.0), gp.Kernel(8.0, 1.0)), 12
    v, faces = small
    factor = gp.kernel_factor(v, kernels, num_points=len(v))
    modes = gp.principal_modes(factor, v, faces, count, tangential=tangential)
    n = len(v)
    dense = np.zeros((3 * n, 3 * n))
    mirror = np.diag([-1.0, 1.0, 1.0])
    for i in range(n):
        for j in range(n):
            near, across = np.sum((v[i] - v[j]) ** 2), np.sum((v[i] - mirror @ v[j]) ** 2)
            k, km = (sum(s**2 * np.exp(-d / (2 * le**2)) for le, s in kernels)
                     for d in (near, across))  # fmt: skip
            block = 0.9 * (k * np.eye(3) + km * mirror) + 0.1 * (k * np.eye(3) - km * mirror)
            dense[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = block
    fields = [0.08 * v] + [0.05 * v * np.eye(3)[i] for i in range(3)]
    for field in fields:
        dense += np.outer(field.ravel(), field.ravel())
    root = np.zeros((3 * n, 3 * n))
    normals = gp.outward_normals(v, faces)
    for i, (share, normal) in enumerate(zip(_weights(v, faces), normals, strict=True)):
        metric = tangential * np.eye(3) + (1.0 - tangential) * np.outer(normal, normal)
        root[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] = linalg.sqrtm(share * metric)
    rigid = [np.tile(axis, n) for axis in np.eye(3)]
    rigid += [np.cross(axis, v).ravel() for axis in np.eye(3)]
    basis = np.linalg.qr(root @ np.stack(rigid, 1))[0]
    keep = np.eye(3 * n) - basis @ basis.T
    values, vectors = np.linalg.eigh(keep @ root @ dense @ root @ keep)
    weighted = modes.reshape(count, -1) @ root
    np.testing.assert_allclose((weighted**2).sum(1), values[::-1][:count], rtol=1e-4)
    projector = vectors[:, ::-1][:, :count]
    residual = weighted - (weighted @ projector) @ projector.T
    assert np.abs(residual).max() < 1e-3


def test_modes_are_orthogonal_sorted_and_free_of_rigid_motion(template):
    vertices, faces = template
    weights = np.repeat(_weights(vertices, faces), 3)
    modes = build.smooth_modes(vertices, faces, 15).reshape(15, -1)
    gram = modes @ (weights[:, None] * modes.T)
    deviations = np.sqrt(np.diag(gram))
    correlation = gram / np.outer(deviations, deviations)
    assert np.abs(correlation - np.eye(15)).max() < 1e-6
    assert (np.diff(deviations) < 0).all()
    for axis in np.eye(3):
        for field in (np.tile(axis, len(vertices)), np.cross(axis, vertices).ravel()):
            share = modes @ (weights * field) / np.sqrt(weights @ field**2)
            assert np.abs(share).max() < 1e-6 * deviations[0]


def test_most_variance_is_left_right_symmetric(small):
    """With symmetric_fraction 1 and 0 every mode is purely symmetric or antisymmetric."""
    vertices, faces = small
    mirror = np.array([-1.0, 1.0, 1.0])
    partner = np.argmin(((vertices[:, None] - vertices[None] * mirror) ** 2).sum(2), axis=1)
    assert np.abs(vertices[partner] * mirror - vertices).max() < 1e-4
    for fraction, sign in ((1.0, 1.0), (0.0, -1.0)):
        factor = gp.kernel_factor(
            vertices, symmetric_fraction=fraction, isotropic_scale=0.0, axis_scale=0.0,
            num_points=len(vertices),
        )  # fmt: skip
        modes = gp.principal_modes(factor, vertices, faces, 8, tangential=1.0)
        np.testing.assert_allclose(modes[:, partner] * mirror, sign * modes, atol=2e-3)


def test_rich_modes_and_bad_counts(template):
    vertices, faces = template
    rich = build.smooth_modes(vertices, faces, 300, kernels=build.REGISTRATION_KERNELS)
    assert rich.shape == (300, 2048, 3)
    assert np.isfinite(rich).all()
    with pytest.raises(ValueError, match="num_modes is 0"):
        build.smooth_modes(vertices, faces, 0)
    with pytest.raises(ValueError, match="give 1 to 124"):
        build.smooth_modes(vertices, faces, 125, num_points=40)
