"""From pixels to vertebrae: detect in every view, match the views, name the levels, start."""

from dartjax.pipeline.detection._detect import ViewDetections as ViewDetections
from dartjax.pipeline.detection._detect import detect as detect
from dartjax.pipeline.detection._detect import exposed_field as exposed_field
from dartjax.pipeline.detection._find import FoundSpine as FoundSpine
from dartjax.pipeline.detection._find import find_spine as find_spine
from dartjax.pipeline.detection._landmarks import with_landmarks as with_landmarks
from dartjax.pipeline.detection._levels import NamedLevels as NamedLevels
from dartjax.pipeline.detection._levels import name_levels as name_levels
from dartjax.pipeline.detection._match import MatchedVertebra as MatchedVertebra
from dartjax.pipeline.detection._match import match as match
from dartjax.pipeline.detection._poses import curve_poses as curve_poses
from dartjax.pipeline.detection._tasks import found_tasks as found_tasks
from dartjax.pipeline.detection._tasks import missed_task as missed_task
from dartjax.pipeline.detection._tasks import tasks_of_truths as tasks_of_truths
