import numpy as np
import pytest
import trimesh
from skimage.measure import euler_number

from dartjax import data, mesh, transforms
from dartjax.data.cohorts import _truth
from tests.data import phantoms

MAJOR, MINOR = 14.0, 7.0  # mm


def torus_labels(affine, shape):
    """A torus about world z round the origin, voxelised on any grid, as label 20."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = (index @ affine[:3, :3].T + affine[:3, 3])[..., :].transpose(3, 0, 1, 2)
    inside = (np.hypot(x, y) - MAJOR) ** 2 + z**2 < MINOR**2
    return np.where(inside, 20, 0).astype(np.uint8)


def grid(spacing, *, mirror=False, angles=(0.0, 0.0, 0.0)):
    rotation = np.asarray(transforms.SO3.from_rpy_radians(*angles).as_matrix(), float)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing) @ np.diag([-1.0 if mirror else 1.0, 1, 1])
    shape = tuple(int(n) for n in np.ceil(64.0 / np.array(spacing)))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, shape


GRIDS = [
    grid((1.0, 1.0, 1.0)),
    grid((0.7, 0.7, 2.5)),
    grid((0.7, 0.7, 2.5), mirror=True),
    grid((0.8, 1.2, 2.0), angles=(0.4, -0.3, 0.6)),
]


@pytest.mark.parametrize(("affine", "shape"), GRIDS)
def test_surface_of_a_torus(affine, shape):
    """Watertight, outward, genus 1, of the label's volume, and near the torus."""
    labels = torus_labels(affine, shape)
    surface = data.surface_of(labels, affine, 20)
    vertices, faces = np.asarray(surface.vertices, float), np.asarray(surface.faces)
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    assert mesh.euler_characteristic(faces) == 0
    volume = float(mesh.volume(surface.vertices, surface.faces))
    label_volume = (labels > 0).sum() * abs(np.linalg.det(affine[:3, :3]))
    assert volume == pytest.approx(label_volume, rel=0.01)
    assert volume == pytest.approx(2 * np.pi**2 * MAJOR * MINOR**2, rel=0.05)
    distance = np.hypot(np.hypot(*vertices[:, :2].T) - MAJOR, vertices[:, 2]) - MINOR
    assert np.abs(distance).mean() < 0.12 * np.linalg.norm(affine[:3, :3], axis=0).max()


@pytest.mark.parametrize(("affine", "shape"), GRIDS)
def test_solid_agrees_with_the_surface(affine, shape):
    labels = torus_labels(affine, shape)
    surface = data.surface_of(labels, affine, 20)
    vertices, faces = np.asarray(surface.vertices, float), np.asarray(surface.faces)
    origin, count = data.grid_around(vertices)
    solid = data.solid_of(labels, affine, 20, origin=origin, shape=count)
    voxels = mesh.voxelize(vertices, faces, origin, count)
    assert 2 * (solid & voxels).sum() / (solid.sum() + voxels.sum()) > 0.99


def test_only_the_largest_part_is_kept():
    labels = np.where(phantoms.ring(), 20, 0).astype(np.uint8)
    labels[1:4, 1:4, 1:4] = 20
    surface = data.surface_of(labels, phantoms.AFFINE, 20)
    assert len(trimesh.Trimesh(surface.vertices, surface.faces, process=False).split()) == 1
    assert float(np.min(np.asarray(surface.vertices)[:, 0])) > 1.5 * 5


def test_a_pinhole_is_closed_and_a_canal_is_not():
    distance = np.ones((30, 30, 30), np.float32)
    distance[5:25, 5:25, 12:18] = -1.0
    distance[12:18, 12:18] = 1.0  # the canal
    distance[8, 8] = 1.0  # one sample wide
    assert euler_number(distance < 0, 3) == -1
    assert euler_number(_truth._one_solid(distance) < 0, 3) == 0


def test_label_at_the_border_is_closed_there():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:15, 5:15, 8:] = 20
    surface = data.surface_of(labels, np.diag([2.0, 2.0, 2.0, 1.0]), 20)
    assert trimesh.Trimesh(surface.vertices, surface.faces, process=False).is_watertight


def test_absent_label():
    with pytest.raises(data.DataError, match="label 21 is not in the mask"):
        data.surface_of(np.where(phantoms.ring(), 20, 0).astype(np.uint8), phantoms.AFFINE, 21)
