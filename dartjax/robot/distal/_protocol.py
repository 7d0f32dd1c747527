"""The protocol of distal locking as a state machine: what may follow what, and where it ends.

[Y] section II: the nail is in, the robot sits on the bone or on the nail's head, one image is
taken (after a few to find a fronto-parallel view, or from anywhere), the robot moves once and
locks, and the surgeon drills. Every measurement can fail; then the protocol goes back to an image
or ends, and the drill never runs on a pose that was not measured.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from dartjax.robot._errors import NavigationError

Mounting = Literal["bone", "nail_head"]
ViewType = Literal["fronto_parallel", "generic"]
MAX_IMAGES = 10  # until the radiation is not worth it


class State(enum.Enum):
    """Where in the protocol an operation is."""

    NAIL_IN = "nail in, fracture reduced"
    MOUNTED = "robot mounted"
    CALIBRATED = "C-arm calibrated in this pose"
    IMAGED = "guide and nail found in an image"
    POSITIONED = "robot at the goal"
    LOCKED = "robot locked"
    DRILLED = "holes drilled"
    BY_HAND = "given up: lock the nail by hand"


class Event(enum.Enum):
    """What happens."""

    MOUNT = "mount the robot"
    CALIBRATE = "calibrate the C-arm"
    SEEN = "guide and nail are found"
    NOT_SEEN = "guide or nail is not found"
    TURN = "turn the C-arm"
    MOVED = "the robot has moved"
    OUT_OF_REACH = "the goal is out of the robot's reach"
    LOCK = "lock the robot"
    SHIFTED = "the target no longer fits the last image"
    DRILL = "drill"


_NEXT: Mapping[tuple[State, Event], State] = {
    (State.NAIL_IN, Event.MOUNT): State.MOUNTED,
    (State.MOUNTED, Event.CALIBRATE): State.CALIBRATED,
    (State.CALIBRATED, Event.SEEN): State.IMAGED,
    (State.CALIBRATED, Event.NOT_SEEN): State.MOUNTED,
    (State.CALIBRATED, Event.TURN): State.MOUNTED,
    (State.IMAGED, Event.TURN): State.MOUNTED,
    (State.IMAGED, Event.MOVED): State.POSITIONED,
    (State.IMAGED, Event.OUT_OF_REACH): State.NAIL_IN,
    (State.POSITIONED, Event.LOCK): State.LOCKED,
    (State.LOCKED, Event.SHIFTED): State.MOUNTED,
    (State.LOCKED, Event.DRILL): State.DRILLED,
}
# What each mounting costs: the bone needs two screws of 4 mm; the nail's head needs none, but the
# nail bends on the way to its far end, so that the robot's neutral pose is further from the goal.
MOUNTING_STEPS: Mapping[Mounting, str] = {
    "bone": "two unicortical screws of 4 mm, 30 mm apart along the nail",
    "nail_head": "the U-shaped adaptor on the nail's head, across the shaft's length",
}


class ProtocolError(NavigationError):
    """An event that may not happen in this state."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """An operation: its mounting and view, where it stands, how many images it took."""

    mounting: Mounting
    view: ViewType
    state: State = State.NAIL_IN
    images: int = 0
    mounts: int = 0
    log: tuple[str, ...] = ()

    def after(self, event: Event) -> "Protocol":
        """The operation after an event.

        ProtocolError if the event may not happen now. An operation with too many images, or a
        robot mounted twice in vain, ends as BY_HAND.
        """
        following = _NEXT.get((self.state, event))
        if following is None:
            allowed = [own.value for state, own in _NEXT if state is self.state]
            raise ProtocolError(
                f"{event.value!r} while {self.state.value!r}: "
                f"possible now: {', '.join(allowed) or 'nothing'}"
            )
        images = self.images + (event in (Event.SEEN, Event.NOT_SEEN))
        mounts = self.mounts + (event is Event.MOUNT)
        exhausted = images >= MAX_IMAGES and following is State.MOUNTED
        if exhausted or (event is Event.OUT_OF_REACH and mounts >= 2):
            following = State.BY_HAND
        note = MOUNTING_STEPS[self.mounting] if event is Event.MOUNT else event.value
        return dataclasses.replace(
            self, state=following, images=images, mounts=mounts, log=(*self.log, note)
        )

    @property
    def is_over(self) -> bool:
        """Nothing can follow."""
        return self.state in (State.DRILLED, State.BY_HAND)
