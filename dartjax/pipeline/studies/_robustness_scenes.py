"""Scenes of the robustness curves: the same vertebrae, with one factor degraded at a time.

All other factors are the same, random numbers included, so the points of a curve are paired.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from dartjax import data, simulation, transforms
from dartjax._progress import Progress, no_progress
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.pipeline._starts import detected_tasks
from dartjax.pipeline._task import Task
from dartjax.registration import carm_motion, stack, with_moved_cameras
from dartjax.simulation import Detector, TrueVertebra

AS_GIVEN, REFINED = "cameras as given", "cameras refined"
CAMERA_CURVES = ("camera_angle", "camera_shift")
MAX_VIEWS = 4
# Values on the x axis of each curve: degrees and mm of the second view's misplacement, number of
# views, degrees between two views, mm of landmark noise, Dice of the masks.
ROBUSTNESS_VALUES: Mapping[str, tuple[int | float, ...]] = {
    "camera_angle": (0.0, 1.0, 2.0, 3.0),
    "camera_shift": (0.0, 3.0, 6.0, 10.0),
    "views": (1, 2, 3, 4),
    "angles": (10.0, 30.0, 60.0, 90.0, 120.0, 150.0, 170.0),
    "landmarks": (1.0, 2.0, 3.0, 4.5, 6.0),
    "masks": (0.80, 0.85, 0.90, 0.95, 1.0),
}


@dataclasses.dataclass(frozen=True)
class RobustnessScene:
    """One point of a robustness curve: all vertebrae in one set of views."""

    curve: str
    value: int | float
    arm: str  # AS_GIVEN or REFINED
    repeat: int
    tasks: Sequence[Task]
    wrong_motion: transforms.SE3  # error of the second view; the identity if it is correct
    isocenter: np.ndarray


class RobustnessSetup:
    """Setup of the curves of one subject: one draw of views and errors."""

    def __init__(
        self,
        case: data.Case,
        truths: Sequence[TrueVertebra],
        levels: Collection[str],
        seed: int,
        repeat: int,
    ):
        """Draw the views and errors. `truths` are all vertebrae; only `levels` are fitted, but the
        cameras are refined with all vertebrae."""
        self.case, self.truths, self.seed, self.repeat = case, truths, seed, repeat
        self._own = [truth for truth in truths if truth.level in levels]
        self.isocenter = simulation.middle_of(truths)
        self._setup = simulation.CarmSetup()
        rng = np.random.default_rng([seed, repeat])
        self._views = simulation.random_views(rng, self.isocenter, self._setup, MAX_VIEWS)
        self._primary = rng.uniform(-np.pi, np.pi)
        self._turn_axis, self._shift_axis = (_direction(rng) for _ in range(2))
        self._seen: list[Radiograph] = []

    def scenes(self, curve: str) -> Iterator[RobustnessScene]:
        """Make the points of one curve of `ROBUSTNESS_VALUES`."""
        makers: dict[str, Callable[[str], Iterator[RobustnessScene]]] = {
            "camera_angle": self._wrong_cameras,
            "camera_shift": self._wrong_cameras,
            "views": self._fewer_views,
            "angles": self._angles,
            "landmarks": self._worse_detector,
            "masks": self._worse_detector,
        }
        return makers[curve](curve)

    def _wrong_cameras(self, curve: str) -> Iterator[RobustnessScene]:
        tasks = self._detected(self._radiographs(2), Detector(), self.truths)
        for value in ROBUSTNESS_VALUES[curve]:
            motion = self.motion(value, 0.0) if curve == "camera_angle" else self.motion(0.0, value)
            wrong = tasks_with_motions(tasks, second_view_motions(motion))
            for arm in (AS_GIVEN, REFINED):
                yield self._scene(curve, value, wrong, arm, motion)

    def _fewer_views(self, curve: str) -> Iterator[RobustnessScene]:
        tasks = self._detected(self._radiographs(MAX_VIEWS), Detector())
        for value in ROBUSTNESS_VALUES[curve]:
            valid = jnp.arange(MAX_VIEWS) < value
            fewer = [
                dataclasses.replace(
                    task, observations=dataclasses.replace(task.observations, view_valid=valid)
                )
                for task in tasks
            ]
            yield self._scene(curve, value, fewer)

    def _angles(self, curve: str) -> Iterator[RobustnessScene]:
        first = self._simulated([self._level_view(0.0)])
        for value in ROBUSTNESS_VALUES[curve]:
            second = self._simulated([self._level_view(value)])
            yield self._scene(curve, value, self._detected([*first, *second], Detector()))

    def _worse_detector(self, curve: str) -> Iterator[RobustnessScene]:
        for value in ROBUSTNESS_VALUES[curve]:
            detector = (
                Detector(landmark_mm=value)
                if curve == "landmarks"
                else Detector(mask_dice=value, mask_dice_spread=0.0)
            )
            yield self._scene(curve, value, self._detected(self._radiographs(2), detector))

    def motion(self, angle_deg: float, shift_mm: float) -> transforms.SE3:
        """Make the error of a C-arm about the isocentre, of the given size, in the directions of
        this draw."""
        turn = jnp.asarray(np.deg2rad(angle_deg) * self._turn_axis, jnp.float32)
        shift = jnp.asarray(shift_mm * self._shift_axis, jnp.float32)
        return carm_motion(jnp.asarray(self.isocenter, jnp.float32), turn, shift)

    def _scene(
        self,
        curve: str,
        value: int | float,
        tasks: Sequence[Task],
        arm: str = AS_GIVEN,
        motion: transforms.SE3 | None = None,
    ) -> RobustnessScene:
        wrong = transforms.SE3.identity() if motion is None else motion
        return RobustnessScene(curve, value, arm, self.repeat, tasks, wrong, self.isocenter)

    def _level_view(self, angle_deg: float) -> Camera:
        rotation = transforms.carm_rotation(self._primary + np.deg2rad(angle_deg), 0.0)
        return simulation.carm_view(rotation, self.isocenter, self._setup)

    def _radiographs(self, num_views: int) -> list[Radiograph]:
        """Simulate the first random views; each view is simulated once."""
        made = len(self._seen)
        if made < num_views:
            self._seen += self._simulated(self._views[made:num_views])
        return self._seen[:num_views]

    def _simulated(self, views: Sequence[Camera]) -> list[Radiograph]:
        return simulation.simulate(self.case.ct, views, self._setup)

    def _detected(
        self,
        radiographs: Sequence[Radiograph],
        detector: Detector,
        truths: Sequence[TrueVertebra] | None = None,
    ) -> list[Task]:
        return detected_tasks(
            self.case.subject,
            self._own if truths is None else truths,
            radiographs,
            detector=detector,
            seed=self.seed,
            pair=self.repeat,
        )


def robustness_scenes(
    case: data.Case,
    curves: Sequence[str],
    *,
    levels: Sequence[str] = (),
    repeats: int = 1,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[RobustnessScene]:
    """Make all points of the named `curves` (see `ROBUSTNESS_VALUES`) for one subject, in `repeats`
    draws of views and errors, for these levels (all if empty). Scenes with wrong cameras contain
    every complete level, because all of them contribute to the camera refinement."""
    with progress(f"true shapes of {case.subject}") as step:
        wanted = () if set(curves) & set(CAMERA_CURVES) else levels
        truths = simulation.true_vertebrae(case, wanted, step)
    own = levels or [truth.level for truth in truths]
    scenes = []
    with progress(f"scenes of {case.subject}") as step:
        for repeat in range(repeats):
            setup = RobustnessSetup(case, truths, own, seed, repeat)
            for curve in curves:
                for scene in setup.scenes(curve):
                    scenes.append(scene)
                    step(f"{curve} {scene.value:g}")
    return scenes


def second_view_motions(motion: transforms.SE3) -> transforms.SE3:
    """Make the motions of two cameras of which only the second moves."""
    return stack([transforms.SE3.identity(), motion])


def tasks_with_motions(tasks: Sequence[Task], motions: transforms.SE3) -> list[Task]:
    """Move the cameras of all tasks of a scene (leading axis view)."""
    return [
        dataclasses.replace(t, observations=with_moved_cameras(t.observations, motions))
        for t in tasks
    ]


def _direction(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return axis / np.linalg.norm(axis)
