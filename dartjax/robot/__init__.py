"""Robots beside the patient, by subject: `arms`, `carm`, `cooperation`, `navigation`, `distal`.

What can go wrong is the same everywhere: status codes inside jit, named errors on the host.
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

_SUBJECTS: tuple[ModuleType, ...] = (arms, carm, cooperation, navigation, distal)

if not TYPE_CHECKING:  # a type checker would take any name at all for one of the module's

    def __getattr__(name: str) -> Any:
        """Find a name of 0.1, when everything stood here, in the sub-package of its subject."""
        for subject in _SUBJECTS:
            if not name.startswith("_") and hasattr(subject, name):
                return getattr(subject, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        public = {
            name for subject in _SUBJECTS for name in vars(subject) if not name.startswith("_")
        }
        return sorted(public | globals().keys())
