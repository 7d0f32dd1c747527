"""Closed surfaces with known solids, for tests."""

import numpy as np
import trimesh
from scipy.spatial import ConvexHull


def sphere(num_vertices: int, radius: float, center=(0.0, 0.0, 0.0)):
    """Near-uniform sphere from a Fibonacci lattice: vertices (n, 3) and outward faces."""
    i = np.arange(num_vertices) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / num_vertices), np.pi * (1 + 5**0.5) * i
    unit = np.stack(
        [np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1
    )
    faces = ConvexHull(unit).simplices
    normals = np.cross(unit[faces[:, 1]] - unit[faces[:, 0]], unit[faces[:, 2]] - unit[faces[:, 0]])
    inward = np.einsum("fi,fi->f", normals, unit[faces].mean(1)) < 0
    faces[inward] = faces[inward][:, ::-1]
    return radius * unit + np.asarray(center), faces


def box(half_widths, subdivisions: int = 4):
    """A box about the origin, its faces subdivided so that its patches are small."""
    mesh = trimesh.creation.box(extents=2 * np.asarray(half_widths, float))
    for _ in range(subdivisions):
        mesh = mesh.subdivide()
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def torus(major: float, minor: float, sections: tuple[int, int] = (64, 32)):
    """A torus about z: genus 1, as a vertebra."""
    mesh = trimesh.creation.torus(
        major, minor, major_sections=sections[0], minor_sections=sections[1]
    )
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)
