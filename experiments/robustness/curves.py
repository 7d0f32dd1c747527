"""The scenes behind the robustness curves: the same vertebrae, one thing made worse at a time.

Everything else stays as it is, random numbers included, so the points of a curve are paired.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import data, pipeline, simulation, transforms
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.pipeline import Task
from dartjax.registration import (
    CAMERA_STATUS,
    CameraPrior,
    carm_motion,
    refine_cameras,
    stack,
    with_moved_cameras,
)
from dartjax.simulation import Detector, TrueVertebra

AS_GIVEN, REFINED = "cameras as given", "cameras refined"
MAX_VIEWS = 4
AXES = {
    "camera_angle": "second view turned [deg]",
    "camera_shift": "second view shifted [mm]",
    "views": "views",
    "angles": "angle between two views [deg]",
    "landmarks": "landmark noise [mm]",
    "masks": "Dice of the masks",
}
VALUES = {
    "camera_angle": (0.0, 1.0, 2.0, 3.0),
    "camera_shift": (0.0, 3.0, 6.0, 10.0),
    "views": (1, 2, 3, 4),
    "angles": (10.0, 30.0, 60.0, 90.0, 120.0, 150.0, 170.0),
    "landmarks": (1.0, 2.0, 3.0, 4.5, 6.0),
    "masks": (0.80, 0.85, 0.90, 0.95, 1.0),
}
# What the flag --curves takes, and the curves that each makes.
CURVES = {
    "cameras": ("camera_angle", "camera_shift"),
    "views": ("views",),
    "angles": ("angles",),
    "landmarks": ("landmarks",),
    "masks": ("masks",),
}
_refine = jax.jit(refine_cameras)


@dataclasses.dataclass(frozen=True)
class Scene:
    """All vertebrae of one point of one curve in one set of views."""

    curve: str
    value: float
    arm: str  # AS_GIVEN or REFINED
    repeat: int
    tasks: Sequence[Task]
    wrong_motion: transforms.SE3  # of the second view; the identity where it is right
    isocenter: np.ndarray


@dataclasses.dataclass(frozen=True)
class CameraOutcome:
    """What refinement made of the second view: how far it still is from where it stood."""

    angle_left_deg: float
    shift_left_mm: float
    status: str


class Bench:
    """One subject and one draw of views and errors, from which every curve is made."""

    def __init__(
        self,
        case: data.Case,
        truths: Sequence[TrueVertebra],
        levels: Collection[str],
        seed: int,
        repeat: int,
    ):
        """`truths` are all vertebrae there are; only `levels` are fitted, but cameras are refined
        with all of them."""
        self.case, self.truths, self.seed, self.repeat = case, truths, seed, repeat
        self._own = [truth for truth in truths if truth.level in levels]
        self.isocenter = simulation.middle_of(truths)
        self._setup = simulation.CarmSetup()
        rng = np.random.default_rng([seed, repeat])
        self._views = simulation.random_views(rng, self.isocenter, self._setup, MAX_VIEWS)
        self._primary = rng.uniform(-np.pi, np.pi)
        self._turn_axis, self._shift_axis = (_direction(rng) for _ in range(2))
        self._seen: list[Radiograph] = []

    def scenes(self, curve: str) -> Iterator[Scene]:
        """The points of one curve of `AXES`."""
        makers: dict[str, Callable[[str], Iterator[Scene]]] = {
            "camera_angle": self._wrong_cameras,
            "camera_shift": self._wrong_cameras,
            "views": self._fewer_views,
            "angles": self._angles,
            "landmarks": self._worse_detector,
            "masks": self._worse_detector,
        }
        return makers[curve](curve)

    def _wrong_cameras(self, curve: str) -> Iterator[Scene]:
        tasks = self._detected(self._radiographs(2), Detector(), self.truths)
        for value in VALUES[curve]:
            motion = self.motion(value, 0.0) if curve == "camera_angle" else self.motion(0.0, value)
            wrong = _with_motions(tasks, _second(motion))
            for arm in (AS_GIVEN, REFINED):
                yield self._scene(curve, value, wrong, arm, motion)

    def _fewer_views(self, curve: str) -> Iterator[Scene]:
        tasks = self._detected(self._radiographs(MAX_VIEWS), Detector())
        for value in VALUES[curve]:
            valid = jnp.arange(MAX_VIEWS) < value
            fewer = [
                dataclasses.replace(
                    task, observations=dataclasses.replace(task.observations, view_valid=valid)
                )
                for task in tasks
            ]
            yield self._scene(curve, value, fewer)

    def _angles(self, curve: str) -> Iterator[Scene]:
        first = self._simulated([self._level_view(0.0)])
        for value in VALUES[curve]:
            second = self._simulated([self._level_view(value)])
            yield self._scene(curve, value, self._detected([*first, *second], Detector()))

    def _worse_detector(self, curve: str) -> Iterator[Scene]:
        for value in VALUES[curve]:
            detector = (
                Detector(landmark_mm=value)
                if curve == "landmarks"
                else Detector(mask_dice=value, mask_dice_spread=0.0)
            )
            yield self._scene(curve, value, self._detected(self._radiographs(2), detector))

    def motion(self, angle_deg: float, shift_mm: float) -> transforms.SE3:
        """A C-arm's error about the isocentre: sizes as given, directions those of this draw."""
        turn = jnp.asarray(np.deg2rad(angle_deg) * self._turn_axis, jnp.float32)
        shift = jnp.asarray(shift_mm * self._shift_axis, jnp.float32)
        return carm_motion(jnp.asarray(self.isocenter, jnp.float32), turn, shift)

    def _scene(
        self,
        curve: str,
        value: float,
        tasks: Sequence[Task],
        arm: str = AS_GIVEN,
        motion: transforms.SE3 | None = None,
    ) -> Scene:
        wrong = transforms.SE3.identity() if motion is None else motion
        return Scene(curve, value, arm, self.repeat, tasks, wrong, self.isocenter)

    def _level_view(self, angle_deg: float) -> Camera:
        rotation = transforms.carm_rotation(self._primary + np.deg2rad(angle_deg), 0.0)
        return simulation.carm_view(rotation, self.isocenter, self._setup)

    def _radiographs(self, num_views: int) -> list[Radiograph]:
        """The first of the random views, each made once."""
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
        return pipeline.detected_tasks(
            self.case.subject,
            self._own if truths is None else truths,
            radiographs,
            detector=detector,
            seed=self.seed,
            pair=self.repeat,
        )


def started(
    scenes: Sequence[Scene], evidence: float, step: Callable[[str], None]
) -> tuple[list[Scene], list[CameraOutcome]]:
    """The scenes with starts for all vertebrae, cameras refined first where the arm says so (and
    the evidence for it exceeds what `CameraPrior` calls by that name)."""
    # Neighbours are those of the same scene.
    numbered = [_numbered(own, i) for i, own in enumerate(scenes)]
    first = _initialised(numbered, step)
    moved, outcomes = [], []
    for own, begun in zip(numbered, first, strict=True):
        motions = transforms.SE3.identity((_num_views(own),))
        status = ""
        if own.arm == REFINED:
            motions, status = _refined(own.tasks, [task.start for task in begun.tasks], evidence)
            step(f"{own.curve} {own.value:g}: {status}")
        moved.append(dataclasses.replace(own, tasks=_with_motions(own.tasks, motions)))
        outcomes.append(_outcome(own, motions, status))
    chosen = [i for i, own in enumerate(moved) if own.arm == REFINED]
    if chosen:
        second = _initialised([moved[i] for i in chosen], step)
        for i, own in zip(chosen, second, strict=True):
            first[i] = own
    return first, outcomes


def only(scenes: Sequence[Scene], levels: Collection[str]) -> list[Scene]:
    """The scenes with the vertebrae of these levels."""
    return [
        dataclasses.replace(own, tasks=[task for task in own.tasks if task.level in levels])
        for own in scenes
    ]


def _numbered(own: Scene, number: int) -> Scene:
    return dataclasses.replace(
        own, tasks=[dataclasses.replace(task, pair=number) for task in own.tasks]
    )


def _num_views(own: Scene) -> int:
    return len(own.tasks[0].observations.view_valid)


def _initialised(scenes: Sequence[Scene], step: Callable[[str], None]) -> list[Scene]:
    """Scenes of the same number of views go through the ladder together."""
    done: dict[int, Scene] = {}
    for num_views in sorted({_num_views(own) for own in scenes}):
        chosen = [i for i, own in enumerate(scenes) if _num_views(own) == num_views]
        tasks, _ = pipeline.initialised([t for i in chosen for t in scenes[i].tasks], step=step)
        rest = iter(tasks)
        for i in chosen:
            found = [next(rest) for _ in scenes[i].tasks]
            done[i] = dataclasses.replace(scenes[i], tasks=found)
    return [done[i] for i in range(len(scenes))]


def _refined(
    tasks: Sequence[Task], starts: Sequence[transforms.SE3], evidence: float
) -> tuple[transforms.SE3, str]:
    """Motions of the cameras, from all that was detected of all vertebrae of a scene."""
    models, seen = stack([t.model for t in tasks]), stack([t.observations for t in tasks])
    coefficients = jnp.zeros(models.modes.shape[:2])
    # Traced, so that one program serves every prior.
    prior = jax.tree.map(jnp.asarray, CameraPrior(evidence=evidence))
    found = _refine(models, seen, stack(list(starts)), coefficients, prior)
    return found.motions, CAMERA_STATUS[int(found.status)]


def _outcome(own: Scene, motions: transforms.SE3, status: str) -> CameraOutcome:
    motion = jax.tree.map(lambda leaf: leaf[min(1, len(leaf) - 1)], motions)
    left, pivot = motion @ own.wrong_motion, jnp.asarray(own.isocenter, jnp.float32)
    return CameraOutcome(
        angle_left_deg=float(jnp.rad2deg(transforms.rotation_angle(left.rotation()))),
        shift_left_mm=float(jnp.linalg.norm(left.apply(pivot) - pivot)),
        status=status,
    )


def _second(motion: transforms.SE3) -> transforms.SE3:
    return stack([transforms.SE3.identity(), motion])


def _with_motions(tasks: Sequence[Task], motions: transforms.SE3) -> list[Task]:
    return [
        dataclasses.replace(t, observations=with_moved_cameras(t.observations, motions))
        for t in tasks
    ]


def _direction(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return axis / np.linalg.norm(axis)
