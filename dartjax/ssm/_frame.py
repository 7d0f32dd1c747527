"""Anatomical frame of a vertebra from its surface, on the host.

Input meshes are in patient RAS+ (mm) and may be tilted by up to about 40 degrees. The RAS axes
give the signs (right, anterior, superior), the bone gives the directions.
"""

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy import spatial

from dartjax.ssm._voxels import Solid, label_parts, solid_of


def vertebra_frame(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "4 4"]:
    """Compute world_from_vertebra (4, 4) of one closed vertebral surface in RAS+ mm.

    +x (right) is the normal of the mirror plane (reflective ICP), +z (superior) the mean normal
    of the two end-plates within that plane, +y anterior. The origin is the centroid of the body
    (the part anterior to the canal), projected onto the mirror plane.
    ValueError when no canal is found behind the body (wrong or incomplete mesh).
    """
    right, offset = mirror_plane(vertices)
    rotation = rotation_from(right, np.array([0.0, 0.0, 1.0]))
    center = np.asarray(trimesh.Trimesh(vertices, faces, process=False).center_mass)
    center = center - (center @ right - offset) * right
    for _ in range(4):
        solid = solid_of((vertices - center) @ rotation, faces)
        tilt = _endplate_tilt(solid)
        rotation = rotation @ rotation_about_x(tilt)
    solid = solid_of((vertices - center) @ rotation, faces)
    body = body_centroid(solid)
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = center + rotation @ body
    return pose


def to_vertebra_frame(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "vertex 3"]:
    """Transform one closed vertebral surface from RAS+ mm into its `vertebra_frame`.

    ValueError when that frame is not found.
    """
    pose = vertebra_frame(vertices, faces)
    return (vertices - pose[:3, 3]) @ pose[:3, :3]


def align_to_mirror_plane(vertices: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "vertex 3"]:
    """Rotate and shift vertices in RAS+ mm so that x = 0 is the mirror plane; the sagittal tilt
    is kept."""
    right, offset = mirror_plane(vertices)
    center = vertices.mean(0)
    center = center - (center @ right - offset) * right
    return (vertices - center) @ rotation_from(right, np.array([0.0, 0.0, 1.0]))


def midline_areas(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    spacing: float = 1.0,
) -> Int[np.ndarray, " part"]:
    """Compute the sizes, in pixels of `spacing` mm, of the connected parts of the bone in its
    mirror plane x = 0: for a whole vertebra the body and the spinous process."""
    solid = solid_of(vertices, faces, spacing)
    labels, _ = label_parts(_on_midline(solid))
    return np.bincount(labels.ravel())[1:]


def midline_body(solid: Solid) -> Bool[np.ndarray, "j k"]:
    """Segment the vertebral body in the mirror plane (y, z): the part anterior to the canal."""
    labels, count = label_parts(_on_midline(solid))
    if count < 2:
        raise ValueError(
            "no canal behind the vertebral body in the mirror plane: the mesh must be one whole "
            "vertebra with an open canal, in RAS+ mm"
        )
    areas = np.bincount(labels.ravel())[1:]
    large = np.flatnonzero(areas > 0.2 * areas.max()) + 1
    front = [float(np.argwhere(labels == i)[:, 0].mean()) for i in large]
    return labels == large[front.index(max(front))]


def _on_midline(solid: Solid) -> Bool[np.ndarray, "j k"]:
    near = np.abs(solid.axis(0)) < 1.0
    return solid.occupancy[near].mean(0) > 0.5


def posterior_wall(solid: Solid) -> float:
    """Find y of the posterior wall of the body on the midline, median of its middle third, mm."""
    body = midline_body(solid)
    heights = np.flatnonzero(body.any(0))
    third = len(heights) // 3
    first = [np.flatnonzero(body[:, k])[0] for k in heights[third : len(heights) - third]]
    return float(solid.axis(1)[int(np.median(first))])


def body_centroid(solid: Solid) -> Float[np.ndarray, "3"]:
    """Compute the centroid of the part anterior to the posterior wall, with x = 0."""
    in_front = solid.axis(1) > posterior_wall(solid)
    index = np.argwhere(solid.occupancy & in_front[None, :, None])
    centroid = solid.origin + solid.spacing * np.mean(index, axis=0)
    centroid[0] = 0.0
    return centroid


def mirror_plane(
    vertices: Float[np.ndarray, "vertex 3"],
) -> tuple[Float[np.ndarray, "3"], float]:
    """Fit the mirror plane of a surface: unit normal (toward +x) and offset.

    For matched points p and q = closest point to the mirror image of p, the normal of the
    plane that minimises sum |S p - q|^2 is the eigenvector of the smallest eigenvalue of
    sum (p q^T + q p^T), centred.
    """
    points = vertices[:: max(1, len(vertices) // 4000)]
    tree = spatial.KDTree(vertices)
    normal, offset = np.array([1.0, 0.0, 0.0]), float(points[:, 0].mean())
    for _ in range(200):
        mirrored = points - 2.0 * (points @ normal - offset)[:, None] * normal
        distance, index = tree.query(mirrored)
        keep = distance <= np.quantile(distance, 0.8)
        p, q = points[keep], np.take(vertices, index, axis=0)[keep]
        p_mean, q_mean = p.mean(0), q.mean(0)
        cross = (p - p_mean).T @ (q - q_mean)
        _, vectors = np.linalg.eigh(cross + cross.T)
        previous, normal = normal, vectors[:, 0] * np.sign(vectors[0, 0])
        offset = float(normal @ (p_mean + q_mean) / 2.0)
        if np.linalg.norm(normal - previous) < 1e-5:
            break
    return normal, offset


def _endplate_tilt(solid: Solid) -> float:
    """Compute the angle (rad, about +x) from the grid's z to the mean normal of the end-plates."""
    body = midline_body(solid)
    columns = np.flatnonzero(body.any(1))
    skip = len(columns) // 5
    columns = columns[skip : len(columns) - skip]
    z = solid.axis(2)
    top = [z[np.flatnonzero(body[j])[-1]] for j in columns]
    bottom = [z[np.flatnonzero(body[j])[0]] for j in columns]
    y = solid.axis(1)[columns]
    return float(np.mean([np.arctan(np.polyfit(y, edge, 1)[0]) for edge in (top, bottom)]))


def rotation_about_x(angle: float) -> Float[np.ndarray, "3 3"]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_from(
    right: Float[np.ndarray, "3"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """Make the rotation with columns right, anterior, superior, superior closest to `up`."""
    superior = up - (up @ right) * right
    superior = superior / np.linalg.norm(superior)
    return np.stack([right, np.cross(superior, right), superior], axis=1)
