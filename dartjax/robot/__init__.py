"""Robots and C-arms in the operating room: kinematics, calibration, control and navigation.

Sub-packages: `arms` (kinematics), `carm` (the C-arm as a measuring device), `cooperation` (hand
guidance), `navigation` (two-plane navigation), `distal` (distal locking of nails). Functions inside
jit return status codes; host functions raise the named errors of this package.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

from dartjax.robot import arms, carm, cooperation, distal, navigation
from dartjax.robot._errors import ERROR_OF_STATUS as ERROR_OF_STATUS
from dartjax.robot._errors import BadParameter as BadParameter
from dartjax.robot._errors import BadWrench as BadWrench
from dartjax.robot._errors import ClosureTooLarge as ClosureTooLarge
from dartjax.robot._errors import CorrespondenceFailed as CorrespondenceFailed
from dartjax.robot._errors import DegenerateGeometry as DegenerateGeometry
from dartjax.robot._errors import DetectionFailed as DetectionFailed
from dartjax.robot._errors import JointLimit as JointLimit
from dartjax.robot._errors import NavigationError as NavigationError
from dartjax.robot._errors import NotFrontoParallel as NotFrontoParallel
from dartjax.robot._errors import PoseNotConverged as PoseNotConverged
from dartjax.robot._errors import RobotError as RobotError
from dartjax.robot._errors import SingularConfiguration as SingularConfiguration
from dartjax.robot._errors import StatusCode as StatusCode
from dartjax.robot._errors import TooFewFiducials as TooFewFiducials
from dartjax.robot._errors import UnreachablePose as UnreachablePose
from dartjax.robot._errors import first_status as first_status
from dartjax.robot._errors import raise_for_status as raise_for_status

_SUBPACKAGES: tuple[ModuleType, ...] = (arms, carm, cooperation, navigation, distal)
_RENAMED_SINCE_0_1 = {
    "Calibrated": "PlateCalibration",
    "LeastSquares": "RecursiveLeastSquares",
    "Sighting": "LocatedGuideAndNail",
    "WireSeen": "DetectedWire",
    "absorb": "update_tool_estimate",
    "least_squares_step": "recursive_least_squares_step",
    "see": "locate_guide_and_nail",
    "see_guide": "locate_guide",
    "see_nail": "locate_nail",
}

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept any name as an attribute

    def __getattr__(name: str) -> Any:
        """Look up a name of version 0.1, which had no sub-packages, in the sub-packages."""
        new_name = _RENAMED_SINCE_0_1.get(name, name)
        for subpackage in _SUBPACKAGES:
            if not name.startswith("_") and hasattr(subpackage, new_name):
                return getattr(subpackage, new_name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        public = {
            name
            for subpackage in _SUBPACKAGES
            for name in vars(subpackage)
            if not name.startswith("_")
        }
        return sorted(public | _RENAMED_SINCE_0_1.keys() | globals().keys())
