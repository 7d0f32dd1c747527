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
    Needs yourdfpy (`pip install dartjax[robot]`). Fixed joints are merged into their neighbours. A
    bound that a <limit> omits is 0, as the format says.
    Raises BadParameter if the file or a link does not exist, the file is not a URDF, the joints are
    not a tree, `tool_link` is not given for several leaves, the type of a joint is not supported
    (floating, planar, mimic), or its axis, origin or limits are missing or invalid.
    """
    model = _read_urdf(pathlib.Path(path))
    try:
        return _chain_between(model.robot.joints, base_link, tool_link)
    except BadParameter as error:
        raise BadParameter(f"{path}: {error}") from error


def _chain_between(joints: Sequence[Any], base: str | None, tool: str | None) -> SerialChain:
    _check_tree(joints)
    joints = _joints_between(joints, base, tool)
    frame, screws, limits, names = np.eye(4), [], [], []
    for joint in joints:
        origin = np.eye(4) if joint.origin is None else np.array(joint.origin, float)
        if origin.shape != (4, 4) or not np.isfinite(origin).all():
            raise BadParameter(
                f"joint {joint.name!r} has an origin that is not three finite numbers"
            )
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
        axis = frame[:3, :3] @ _urdf_axis(joint)
        screws.append(_screw(axis, frame[:3, 3], kind))
        limits.append(_urdf_limits(joint))
        names.append(joint.name)
    if not screws:
        raise BadParameter("no moving joint between base and tool link: give other links")
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
    try:
        return yourdfpy.URDF.load(
            str(path), build_scene_graph=False, load_meshes=False, build_collision_scene_graph=False
        )
    except Exception as error:  # the parser raises anything
        raise BadParameter(
            f"{path} is not a valid URDF file, an element or attribute is missing or wrong "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_tree(joints: Sequence[Any]) -> None:
    """Raise BadParameter unless every link has one parent at most and is below a root."""
    parent_of: dict[str, str] = {}
    for joint in joints:
        if not (joint.parent and joint.child):
            raise BadParameter(f"joint {joint.name!r} lacks its parent or child link")
        if joint.child in parent_of:
            raise BadParameter(
                f"link {joint.child!r} is the child of two joints, one is {joint.name!r}: "
                "the joints of a URDF form a tree"
            )
        parent_of[joint.child] = joint.parent
    for link in parent_of:
        above, visited = link, {link}
        while above in parent_of:
            above = parent_of[above]
            if above in visited:
                raise BadParameter(
                    f"the joints form a loop through link {above!r}: the joints of a URDF form a "
                    "tree; closed chains are not supported"
                )
            visited.add(above)


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
    if joint.type == "continuous":
        return -np.inf, np.inf
    if joint.limit is None:
        raise BadParameter(
            f"joint {joint.name!r} is {joint.type} without <limit>: add it, or make the joint "
            "continuous"
        )
    bounds = (joint.limit.lower, joint.limit.upper)
    lower, upper = (0.0 if bound is None else float(bound) for bound in bounds)  # as in the format
    if not lower <= upper:
        raise BadParameter(
            f"joint {joint.name!r}: the lower limit {lower:g} is above the upper limit {upper:g}"
        )
    scale = _MM_PER_M if joint.type == "prismatic" else 1.0
    return scale * lower, scale * upper


def _urdf_axis(joint: Any) -> Float[np.ndarray, "3"]:
    axis = np.array([1.0, 0.0, 0.0] if joint.axis is None else joint.axis, float)
    length = np.linalg.norm(axis)
    if axis.shape != (3,) or not 0.0 < length < np.inf:
        raise BadParameter(f"joint {joint.name!r} has the axis {axis.tolist()}: give a direction")
    return axis / length


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
