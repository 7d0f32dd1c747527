"""Protocol of distal locking as a state machine.

[Y] section II: after insertion of the nail, the robot is mounted on the bone or on the nail's head.
One image is taken (after a few to find a fronto-parallel view, or from any direction), the robot
moves once and locks, and the surgeon drills. If a measurement fails, the protocol returns to the
image or ends. Drilling requires a measured pose.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Literal

from dartjax.robot._errors import NavigationError

Mounting = Literal["bone", "nail_head"]
ViewType = Literal["fronto_parallel", "generic"]
MAX_IMAGES = 10  # limit of radiation exposure


class State(enum.Enum):
    """State of an operation."""

    NAIL_IN = "nail in, fracture reduced"
    MOUNTED = "robot mounted"
    CALIBRATED = "C-arm calibrated in this pose"
    IMAGED = "guide and nail found in an image"
    POSITIONED = "robot at the goal"
    LOCKED = "robot locked"
    DRILLED = "holes drilled"
    BY_HAND = "given up: lock the nail by hand"


class Event(enum.Enum):
    """Event that changes the state of an operation."""

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
# Mounting on the bone needs two screws of 4 mm. Mounting on the nail's head needs none, but the
# nail bends along its length, so that the robot's neutral pose is further from the goal.
MOUNTING_STEPS: Mapping[Mounting, str] = {
    "bone": "two unicortical screws of 4 mm, 30 mm apart along the nail",
    "nail_head": "the U-shaped adaptor on the nail's head, across the shaft's length",
}


class ProtocolError(NavigationError):
    """The event is not allowed in this state."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Operation of distal locking: mounting, kind of view, state, and number of images."""

    mounting: Mounting
    view: ViewType
    state: State = State.NAIL_IN
    images: int = 0
    mounts: int = 0
    log: tuple[str, ...] = ()

    def after(self, event: Event) -> "Protocol":
        """Return the operation after an event.

        Raises ProtocolError if the event is not allowed now. The operation ends as BY_HAND after
        too many images, or if the goal is out of reach after the second mounting.
        """
        following = _NEXT.get((self.state, event))
        if following is None:
            allowed = [other.value for state, other in _NEXT if state is self.state]
            raise ProtocolError(
                f"{event.value!r} is not allowed in the state {self.state.value!r}: "
                f"allowed now: {', '.join(allowed) or 'nothing'}"
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
        """Whether the operation has ended."""
        return self.state in (State.DRILLED, State.BY_HAND)
