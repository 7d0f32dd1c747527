"""From one closed vertebral surface to an annotated template, on the host (offline)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import spatial

from dartjax import mesh
from dartjax.ssm._annotate import Annotation, annotate, attach
from dartjax.ssm._frame import vertebra_frame
from dartjax.ssm._model import ShapeModel
from dartjax.ssm._remesh import clean_surface, folded_pairs, triangle_angles, uniform_remesh


class Template(NamedTuple):
    """A shape model without modes, what it was annotated with, and how good its mesh is."""

    model: ShapeModel
    annotation: Annotation
    quality: dict[str, float]


def build_template(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    num_vertices: int = 2048,
) -> Template:
    """Clean, remesh and annotate one closed vertebral surface given in RAS+ mm.

    Needs the `build` extra. Raises ValueError for a surface that is not one whole vertebra with
    an open canal.
    """
    pose = vertebra_frame(vertices, faces)
    source = (vertices - pose[:3, 3]) @ pose[:3, :3]
    points, triangles = uniform_remesh(*clean_surface(source, faces), num_vertices)
    annotation = annotate(source, faces)
    model = annotated_model(points, triangles, annotation)
    return Template(model, annotation, _quality(source, faces, points, triangles))


def annotated_model(
    points: Float[np.ndarray, "vertex 3"],
    triangles: Int[np.ndarray, "face 3"],
    annotation: Annotation,
) -> ShapeModel:
    """A shape model without modes whose landmarks and paths are bound to the vertices."""
    landmarks = [attach(points, triangles, p) for p in annotation.landmarks]
    paths = [attach(points, triangles, p) for p in annotation.paths.reshape(4, 3)]
    return ShapeModel(
        mean_shape=jnp.asarray(points, jnp.float32),
        modes=jnp.zeros((0, *points.shape), jnp.float32),
        faces=jnp.asarray(triangles, jnp.int32),
        landmark_vertices=jnp.asarray(np.stack([i for i, _ in landmarks]), jnp.int32),
        landmark_weights=jnp.asarray(np.stack([w for _, w in landmarks]), jnp.float32),
        path_vertices=jnp.asarray(np.stack([i for i, _ in paths]).reshape(2, 2, 8), jnp.int32),
        path_weights=jnp.asarray(np.stack([w for _, w in paths]).reshape(2, 2, 8), jnp.float32),
    )


def sample_surface(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    count: int,
    *,
    seed: int,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """`count` points spread uniformly over a surface, mm, and the outward unit normals there."""
    rng = np.random.default_rng(seed)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    doubled = np.linalg.norm(normal, axis=1)
    # Stratified along the cumulative area: more even than independent draws.
    position = (np.arange(count) + rng.random(count)) / count * doubled.sum()
    face = np.minimum(np.searchsorted(np.cumsum(doubled), position), len(faces) - 1)
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, 1 - u, u)[:, None], np.where(u + v > 1, 1 - v, v)[:, None]
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return points, normal[face] / doubled[face][:, None]


def _quality(
    source: Float[np.ndarray, "v 3"],
    source_faces: Int[np.ndarray, "f 3"],
    points: Float[np.ndarray, "w 3"],
    triangles: Int[np.ndarray, "g 3"],
) -> dict[str, float]:
    """Agreement with the source surface and regularity of the triangles."""
    of_source = sample_surface(source, source_faces, 200_000, seed=0)[0]
    of_template = sample_surface(points, triangles, 200_000, seed=1)[0]
    there = spatial.KDTree(of_source).query(of_template[::10])[0]
    back = spatial.KDTree(of_template).query(of_source[::10])[0]
    angles = triangle_angles(points, triangles)
    edges = np.linalg.norm(points[triangles] - points[np.roll(triangles, 1, axis=1)], axis=2)
    volumes = [
        float(mesh.volume(jnp.asarray(v, jnp.float32), jnp.asarray(f)))
        for v, f in ((source, source_faces), (points, triangles))
    ]
    return {
        "distance_to_source_mm": float(0.5 * (there.mean() + back.mean())),
        "largest_distance_to_source_mm": float(max(there.max(), back.max())),
        "volume_error_percent": 100.0 * (volumes[1] / volumes[0] - 1.0),
        "smallest_angle_deg": float(angles.min()),
        "mean_smallest_angle_deg": float(angles.min(1).mean()),
        "mean_edge_mm": float(edges.mean()),
        "edge_deviation_mm": float(edges.std()),
        "largest_edge_mm": float(edges.max()),
        "flipped_pairs": float(len(folded_pairs(points, triangles))),
    }
