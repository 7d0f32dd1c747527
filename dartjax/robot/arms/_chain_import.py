"""Import of serial arms from Denavit-Hartenberg tables and URDF files, on the host."""

import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax.robot._errors import BadParameter
from dartjax.robot.arms._chain import SerialChain
from dartjax.transforms import SE3, from_matrix

_MOVING = {"revolute", "continuous", "prismatic"}
_MM_PER_M = 1000.0


class DHRow(NamedTuple):
    """Row of a Denavit-Hartenberg table for one joint; mm and rad.

    The offset of the joint's position is `theta` for a revolute joint, `d` for a prismatic one. The
    limits are +-pi by default for a revolute joint; a prismatic one has no default.
    """

    a: float
    alpha: float
    d: float
    theta: float
    kind: Literal["revolute", "prismatic"] = "revolute"
    lower: float | None = None
    upper: float | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper limit, with the defaults of a revolute joint."""
        lower, upper = self.lower, self.upper
        return (-np.pi if lower is None else lower), (np.pi if upper is None else upper)


def chain_from_dh(
    rows: Sequence[DHRow],
    *,
    convention: Literal["standard", "modified"] = "standard",
    T_last_tool: SE3 | None = None,
) -> SerialChain:
    """Build a chain from a Denavit-Hartenberg table of a, alpha, d, theta.

    "standard" (Denavit, Hartenberg 1955): T_i = Rz(theta) Tz(d) Tx(a) Rx(alpha), joint i about z of
    frame i-1. "modified" (Craig): T_i = Rx(alpha) Tx(a) Rz(theta) Tz(d), joint i about z of
    frame i. Raises BadParameter for an empty table, numbers that are not finite, reversed limits,
    angles beyond 2 pi, which are in degrees, or a prismatic row without limits.
    """
    if not rows:
        raise BadParameter("the table has no rows: give one row per joint")
    frame, axes = np.eye(4), []
    for number, row in enumerate(rows, 1):
        _check_row(row, number)
        if convention == "standard":
            axes.append(frame)
            frame = frame @ _turn(2, row.theta) @ _shift(row.a, 0.0, row.d) @ _turn(0, row.alpha)
        else:
            frame = frame @ _turn(0, row.alpha) @ _shift(row.a, 0.0, 0.0)
            axes.append(frame)
            frame = frame @ _turn(2, row.theta) @ _shift(0.0, 0.0, row.d)
    screws = [
        _screw(axis[:3, 2], axis[:3, 3], row.kind) for axis, row in zip(axes, rows, strict=True)
    ]
    tool = np.eye(4) if T_last_tool is None else np.asarray(T_last_tool.as_matrix(), float)
    names = tuple(f"q{number}" for number in range(1, len(rows) + 1))
    limits = [row.limits for row in rows]
    return _chain(screws, frame @ tool, limits, names)


def chain_from_urdf(
    path: str | pathlib.Path, *, base_link: str | None = None, tool_link: str | None = None
) -> SerialChain:
    """Read a chain from a URDF file; metres are converted to mm.

    The chain goes from `base_link` (default: the root) to `tool_link` (default: the only leaf).
    Needs yourdfpy (`pip install dartjax[robot]`). Fixed joints are merged into their neighbours.
    Raises BadParameter if the file or a link does not exist, the file is not a URDF, `tool_link` is
    not given for several leaves, or the type of a joint is not supported (floating, planar, mimic).
    """
    model = _read_urdf(pathlib.Path(path))
    joints = _joints_between(model.robot.joints, base_link, tool_link)
    frame, screws, limits, names = np.eye(4), [], [], []
    for joint in joints:
        origin = np.eye(4) if joint.origin is None else np.array(joint.origin, float)
        origin[:3, 3] *= _MM_PER_M
        frame = frame @ origin
        if joint.type == "fixed":
            continue
        if joint.type not in _MOVING or joint.mimic is not None:
            raise BadParameter(
                f"joint {joint.name!r} is {joint.type} or mimics another joint: only revolute, "
                "continuous and prismatic joints are supported"
            )
        kind = "prismatic" if joint.type == "prismatic" else "revolute"
        axis = np.array([1.0, 0.0, 0.0] if joint.axis is None else joint.axis, float)
        axis = frame[:3, :3] @ (axis / np.linalg.norm(axis))
        screws.append(_screw(axis, frame[:3, 3], kind))
        limits.append(_urdf_limits(joint))
        names.append(joint.name)
    if not screws:
        raise BadParameter(f"{path}: no moving joint between base and tool link: give other links")
    return _chain(screws, frame, limits, tuple(names))


def _read_urdf(path: pathlib.Path) -> Any:
    try:
        import yourdfpy  # noqa: PLC0415 (an optional extra)
    except ImportError as error:
        raise ImportError("URDF files need yourdfpy: pip install 'dartjax[robot]'") from error
    if not path.is_file():
        raise BadParameter(f"{path} is not a file: give the path of a URDF file")
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadParameter(f"{path} is not XML: {error}") from error
    if root.tag != "robot":
        raise BadParameter(f"{path} is not a URDF file: its first tag is <{root.tag}>, not <robot>")
    return yourdfpy.URDF.load(
        str(path), build_scene_graph=False, load_meshes=False, build_collision_scene_graph=False
    )


def _joints_between(joints: Sequence[Any], base: str | None, tool: str | None) -> list[Any]:
    """Joints from base to tool, in order."""
    above = {joint.child: joint for joint in joints}
    parents = {joint.parent for joint in joints}
    links = parents | set(above)
    for link in (base, tool):
        if link is not None and link not in links:
            raise BadParameter(f"unknown link {link!r}: choose one of {', '.join(sorted(links))}")
    if tool is None:
        leaves = sorted(set(above) - parents)
        if len(leaves) != 1:
            raise BadParameter(
                f"there are several end links: set tool_link to one of {', '.join(leaves)}"
            )
        tool = leaves[0]
    path = []
    while tool != base and tool in above:
        path.append(above[tool])
        tool = above[tool].parent
    if base is not None and tool != base:
        raise BadParameter(
            f"link {base!r} is not between the root and the tool link: give another base_link"
        )
    return path[::-1]


def _urdf_limits(joint: Any) -> tuple[float, float]:
    if joint.type == "continuous" or joint.limit is None:
        return -np.inf, np.inf
    if joint.limit.lower is None or joint.limit.upper is None:
        raise BadParameter(f"joint {joint.name} has a <limit> without lower and upper: give both")
    scale = _MM_PER_M if joint.type == "prismatic" else 1.0
    return scale * joint.limit.lower, scale * joint.limit.upper


def _check_row(row: DHRow, number: int) -> None:
    if not np.isfinite([row.a, row.alpha, row.d, row.theta]).all():
        raise BadParameter(f"row {number} of the table is not finite: {row}")
    if row.kind == "prismatic" and (row.lower is None or row.upper is None):
        raise BadParameter(f"row {number} is prismatic without limits: give lower and upper in mm")
    lower, upper = row.limits
    if not lower <= upper:
        raise BadParameter(
            f"row {number}: the lower limit {lower} is above the upper limit {upper}"
        )
    angles = [row.alpha, row.theta]
    if max(abs(angle) for angle in angles) > 2.0 * np.pi:
        raise BadParameter(f"row {number}: alpha, theta = {angles} look like degrees; give rad")


def _chain(
    screws: Sequence[np.ndarray],
    home: Float[np.ndarray, "4 4"],
    limits: Sequence[tuple[float, float]],
    names: tuple[str, ...],
) -> SerialChain:
    lower, upper = (jnp.array(side, float) for side in zip(*limits, strict=True))
    return SerialChain(
        jnp.array(np.stack(screws), float), from_matrix(jnp.array(home, float)), lower, upper, names
    )


def _screw(
    axis: Float[np.ndarray, "3"], point: Float[np.ndarray, "3"], kind: str
) -> Float[np.ndarray, "6"]:
    if kind == "prismatic":
        return np.concatenate([axis, np.zeros(3)])
    return np.concatenate([-np.cross(axis, point), axis])


def _turn(axis: int, angle: float) -> Float[np.ndarray, "4 4"]:
    matrix, (i, j) = np.eye(4), [k for k in range(3) if k != axis]
    sign = -1.0 if axis == 1 else 1.0
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -sign * np.sin(angle), sign * np.sin(angle)
    return matrix


def _shift(x: float, y: float, z: float) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix
