"""Settings of a cohort of synthetic subjects."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Number and kind of subjects, and folder of the cohort."""

    family: str = setting(
        "parametric",
        "How vertebrae are made: parametric, warped from meshes, or both in turn.",
        choices=("parametric", "warped", "both"),
    )
    num_subjects: int = setting(2, "Number of subjects.", lower_bound=1)
    first: int = setting(0, "Number of the first subject.", lower_bound=0)
    meshes: str | None = setting(None, "Folder with SUBJECT/LEVEL.ply, for warped subjects.")
    spacing_mm: float = setting(1.0, "Voxel size, 0.5 to 4 mm.")
    field_of_view: str = setting(
        "mixed", "Part of the spine in the CT.", choices=("mixed", "whole", "thorax", "lumbar")
    )
    thick_slices: bool = setting(True, "One CT in four has slices 2 or 3 voxels thick.")
    orientations: bool = setting(True, "Also use PIR, LPS and oblique grids, not only RAS.")
    cohort_out: str | None = setting(None, "Folder of the cohort. Default: OUT/cohort.")
