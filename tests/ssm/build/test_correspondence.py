"""Registration of a template to surfaces: residual, correspondence, regularity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, ssm
from dartjax.ssm import build
from dartjax.ssm.build import _correspondence


@pytest.fixture(scope="module")
def template():
    return data.load_template()


def test_template_is_symmetric_and_of_genus_one(template):
    from dartjax import mesh

    topology = template.topology
    assert topology.faces.shape == (4096, 3)
    assert mesh.euler_characteristic(topology.faces) == 0
    np.testing.assert_array_equal(topology.mirror[topology.mirror], np.arange(2048))
    np.testing.assert_array_equal(topology.parts[topology.mirror], topology.parts)
    for shape in template.level_shapes.values():
        np.testing.assert_allclose(shape[topology.mirror] * [-1.0, 1.0, 1.0], shape, atol=1e-4)
        assert build.triangle_quality(shape, topology.faces)["folded_pairs"] == 0


def test_the_next_level_is_registered(template):
    """From T8 onto T9: on the surface, no folds, close to the packaged registration of T9."""
    faces = template.topology.faces
    target = template.level_shapes["T9"]
    found = build.correspond(template.level_shapes["T8"], faces, target, faces)
    assert found.residual < 0.1 and found.smooth_residual < 0.3
    assert build.triangle_quality(found.vertices, faces)["folded_pairs"] == 0
    error = np.linalg.norm(found.vertices - target, axis=1)
    assert np.median(error) < 1.0 and np.quantile(error, 0.95) < 3.0


@pytest.mark.slow
def test_registration_does_not_depend_on_the_run(template):
    faces, shapes = template.topology.faces, template.level_shapes
    first, second = (build.correspond(shapes["T8"], faces, shapes["T7"], faces) for _ in range(2))
    np.testing.assert_array_equal(first.vertices, second.vertices)
    assert first.vertices.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_stiff_registration_keeps_edge_lengths(template):
    """With less stiffness the residual is smaller and the edges change more."""
    faces = jnp.asarray(template.topology.faces)
    start = jnp.asarray(template.level_shapes["T8"], jnp.float32)
    points, normals = ssm.surface_samples(template.level_shapes["T9"], np.asarray(faces), 2000)
    residuals, strains = [], []
    for stiffness in (20.0, 0.5):
        moved, residual = _correspondence.relax_onto(
            start, faces, points, normals, stiffness=(stiffness,), num_steps=5
        )
        shift = moved - start
        strains.append(float(jnp.mean(jnp.sum((shift[faces[:, 0]] - shift[faces[:, 1]]) ** 2, 1))))
        residuals.append(float(residual))
    assert residuals[1] < residuals[0] and strains[1] > strains[0]
