"""A seven-joint arm and one with a slider, as URDF text and as MuJoCo models."""

# name, kind, origin xyz (m), origin rpy, axis, lower, upper
SEVEN = (
    ("j1", "revolute", (0.0, 0.0, 0.333), (0.0, 0.0, 0.0), (0, 0, 1), -2.8, 2.8),
    ("j2", "revolute", (0.0, 0.0, 0.0), (-1.5707963, 0.0, 0.0), (0, 0, 1), -1.7, 1.7),
    ("j3", "revolute", (0.0, -0.316, 0.0), (1.5707963, 0.0, 0.0), (0, 0, 1), -2.8, 2.8),
    ("j4", "revolute", (0.0825, 0.0, 0.0), (1.5707963, 0.0, 0.0), (0, 0, 1), -3.0, -0.1),
    ("j5", "revolute", (-0.0825, 0.384, 0.0), (-1.5707963, 0.0, 0.0), (0, 0, 1), -2.8, 2.8),
    ("j6", "revolute", (0.0, 0.0, 0.0), (1.5707963, 0.0, 0.0), (0, 0, 1), 0.0, 3.7),
    ("j7", "revolute", (0.088, 0.0, 0.0), (1.5707963, 0.0, 0.0), (0, 0, 1), -2.8, 2.8),
)
SLIDING = (
    ("rail", "prismatic", (0.1, 0.0, 0.2), (0.3, -0.2, 0.1), (0, 1, 0), -0.4, 0.5),
    ("turn", "revolute", (0.0, 0.2, 0.1), (0.0, 0.4, 0.0), (1, 2, 2), -2.0, 2.0),
    ("lift", "prismatic", (0.3, 0.0, 0.0), (0.0, 0.0, 0.7), (0, 0, 1), -0.2, 0.2),
    ("wrist", "continuous", (0.0, 0.1, 0.0), (0.5, 0.0, 0.0), (0, 1, 0), None, None),
)
TOOL = ((0.01, 0.02, 0.207), (0.1, 0.2, 0.3))


def urdf(joints):
    """URDF of the arm: links l0, l1, ..., with a fixed joint to the link `tool`."""
    parts = ['<link name="l0"/>']
    for number, (name, kind, xyz, rpy, axis, lower, upper) in enumerate(joints, 1):
        limit = (
            ""
            if lower is None
            else f'<limit lower="{lower}" upper="{upper}" effort="1" velocity="1"/>'
        )
        parts.append(
            f'<link name="l{number}"/><joint name="{name}" type="{kind}">'
            f'<parent link="l{number - 1}"/><child link="l{number}"/>'
            f'<origin xyz="{_text(xyz)}" rpy="{_text(rpy)}"/><axis xyz="{_text(axis)}"/>{limit}'
            "</joint>"
        )
    xyz, rpy = TOOL
    parts.append(
        f'<link name="tool"/><joint name="fix" type="fixed"><parent link="l{len(joints)}"/>'
        f'<child link="tool"/><origin xyz="{_text(xyz)}" rpy="{_text(rpy)}"/></joint>'
    )
    return f'<robot name="arm">{"".join(parts)}</robot>'


def mjcf(joints):
    """The same arm for MuJoCo, with a site `tool`. URDF angles are extrinsic x, y, z."""
    xyz, rpy = TOOL
    inner = f'<site name="tool" pos="{_text(xyz)}" euler="{_text(rpy)}"/>'
    for name, kind, xyz, rpy, axis, *_ in reversed(joints):
        joint = "slide" if kind == "prismatic" else "hinge"
        inner = (
            f'<body pos="{_text(xyz)}" euler="{_text(rpy)}">'
            f'<joint name="{name}" type="{joint}" axis="{_text(axis)}"/>'
            f'<geom size="0.01" mass="1"/>{inner}</body>'
        )
    compiler = '<compiler angle="radian" eulerseq="XYZ"/>'
    return f"<mujoco>{compiler}<worldbody>{inner}</worldbody></mujoco>"


def _text(values):
    return " ".join(str(value) for value in values)
