"""Inspect a scan of a cohort: its levels, axes and centroids, and what cannot be used."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from dartjax.anatomy import label_of
from dartjax.data.cohorts._case import complete_levels
from dartjax.data.cohorts._centroids import load_centroids
from dartjax.data.cohorts._subject import Scan, Subject
from dartjax.data.cohorts._verse_small import foreign_material
from dartjax.data.formats import mask_centroids

CentroidSource = Literal["auto", "file", "mask"]


@dataclasses.dataclass(frozen=True)
class Inspected:
    """Result of inspecting one scan."""

    subject: Subject  # with the hashes of its CT and mask
    levels: tuple[str, ...]
    rejected: Mapping[str, str]
    spacing_mm: tuple[float, float, float]
    orientation: str  # closest anatomical axes, such as "PIR"
    oblique_deg: float  # largest angle between a voxel axis and the closest axis of the world
    centroids: Mapping[str, Float[np.ndarray, "3"]]  # world mm
    centroid_source: str
    centroid_error_mm: float  # largest distance of a centroid from its vertebra


def inspect_scan(
    subject: Subject,
    scan: Scan,
    *,
    centroids: CentroidSource = "auto",
    drop_foreign_material: bool = False,
) -> Inspected:
    """Inspect a scan: its axes, its complete levels, and the reasons why other levels are not.

    Centroids come from the subject's file, from the mask, or ("auto") from the file if there is
    one. With `drop_foreign_material`, vertebrae with metal or cement are rejected too. DataError
    for a centroid file that is missing or damaged.
    """
    levels, rejected = complete_levels(scan.labels, scan.affine)
    if drop_foreign_material:
        foreign = foreign_material(scan.hu, scan.labels)
        rejected = {**rejected, **{x: "foreign material" for x in foreign if x in levels}}
        levels = tuple(level for level in levels if level not in foreign)
    use_file = centroids == "file" or (centroids == "auto" and subject.centroids_path is not None)
    from_mask = mask_centroids(scan.labels, scan.affine)
    found = load_centroids(subject) if use_file else from_mask
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    axes = scan.affine[:3, :3] / spacing
    return Inspected(
        subject=dataclasses.replace(subject, ct_hash=scan.ct_hash, mask_hash=scan.mask_hash),
        levels=levels,
        rejected=rejected,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        orientation="".join(nib.aff2axcodes(scan.affine)),
        oblique_deg=float(np.degrees(np.arccos(np.clip(np.abs(axes).max(0).min(), 0.0, 1.0)))),
        centroids=found,
        centroid_source="file" if use_file else "mask",
        centroid_error_mm=centroid_error_mm(scan, found) if use_file else 0.0,
    )


def centroid_error_mm(scan: Scan, centroids: Mapping[str, Float[np.ndarray, "3"]]) -> float:
    """Compute the largest distance of a centroid from its own vertebra, mm.

    Centroids of vertebrae that the mask does not contain are ignored.
    """
    boxes = ndimage.find_objects(scan.labels)
    worst = 0.0
    for level, point in centroids.items():
        label = label_of(level)
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is None:
            continue
        voxels = np.argwhere(scan.labels[box] == label) + [side.start for side in box]
        world = voxels @ scan.affine[:3, :3].T + scan.affine[:3, 3]
        worst = max(worst, float(np.linalg.norm(world - point, axis=1).min()))
    # A centroid inside its vertebra is at most half a voxel's diagonal from a voxel's centre.
    half = 0.5 * float(np.linalg.norm(np.linalg.norm(scan.affine[:3, :3], axis=0)))
    return max(0.0, worst - half)
