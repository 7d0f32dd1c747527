"""What a cohort of synthetic subjects can be told."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many subjects of which kind, and where they go."""

    family: str = setting(
        "parametric", "How vertebrae are made.", choices=("parametric", "warped", "both")
    )
    num_subjects: int = setting(2, "How many subjects.", lower_bound=1)
    first: int = setting(0, "Number of the first one.", lower_bound=0)
    meshes: str | None = setting(None, "Folder of SUBJECT/LEVEL.ply, for warped subjects.")
    spacing_mm: float = setting(1.0, "Voxel size, 0.5 to 4 mm.")
    field_of_view: str = setting(
        "mixed", "What the CT shows.", choices=("mixed", "whole", "thorax", "lumbar")
    )
    thick_slices: bool = setting(True, "Slices 2 or 3 voxels thick in one of four.")
    orientations: bool = setting(True, "Grids in PIR, LPS and oblique, not only RAS.")
    cohort_out: str | None = setting(None, "Folder of the cohort. Default: OUT/cohort.")
