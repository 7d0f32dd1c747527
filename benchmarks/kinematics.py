"""Compare the speed of kinematics: dartjax, a NumPy loop and MuJoCo.

    python -m benchmarks.kinematics --out runs/kinematics.json

The hybrid robot (forward kinematics with Jacobian; closed-form inverse) is compared with the same
formulas in a NumPy loop. A seven-joint arm (forward kinematics with Jacobian; inverse by 50 steps
of damped least squares) is compared with MuJoCo, called in a Python loop as usual. MuJoCo has no
inverse kinematics: its row uses the same iteration with MuJoCo's Jacobian. dartjax uses float32
unless --x64; NumPy and MuJoCo use float64. A loop runs on at most `--loop` configurations, and its
time is scaled to all of them. MuJoCo is optional; without it, its rows are missing and a message
says so. The results are compared, and the exit code is 1 if they disagree.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._timing import machine_info, print_table, versions, write_json

STEPS = 50  # of the arm's inverse
BLOCK = 1000  # configurations at a time
# DH rows of a seven-joint arm: a (mm), alpha, d (mm).
ARM = (
    (0.0, -np.pi / 2, 340.0),
    (0.0, np.pi / 2, 0.0),
    (0.0, np.pi / 2, 400.0),
    (0.0, -np.pi / 2, 0.0),
    (0.0, -np.pi / 2, 400.0),
    (0.0, np.pi / 2, 0.0),
    (0.0, 0.0, 126.0),
)


def main() -> int:
    """Print the table and write the JSON. Return 1 if the engines disagree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", default="runs/kinematics.json", help="JSON file to write")
    parser.add_argument("--sizes", default="1,1000,1000000", help="numbers of configurations")
    parser.add_argument(
        "--loop", type=int, default=1000, help="largest number of configurations of a loop"
    )
    parser.add_argument(
        "--arm_inverse_most",
        type=int,
        default=100_000,
        help="largest number of inverses of the arm",
    )
    parser.add_argument("--x64", action="store_true", help="dartjax in float64")
    options = parser.parse_args()

    import jax

    jax.config.update("jax_enable_x64", options.x64)
    sizes = [int(size) for size in options.sizes.split(",")]
    rows, error = _hybrid(sizes, options.loop)
    arm_rows, arm_error = _arm(sizes, options.loop, options.arm_inverse_most)
    rows += arm_rows
    _print(rows)
    limit = 1e-6 if options.x64 else 0.01
    record = {
        "machine": machine_info() | {"device": jax.devices()[0].device_kind},
        "versions": versions("jax", "jaxlib", "numpy", "mujoco", "dartjax"),
        "precision": "float64" if options.x64 else "float32",
        "largest_disagreement_mm": max(error, arm_error),
    }
    write_json(options.out, {**record, "rows": rows})
    print(f"largest disagreement {max(error, arm_error):.2g} mm (limit {limit:g})")
    return 0 if max(error, arm_error) < limit else 1


def _hybrid(sizes: list[int], most: int) -> tuple[list[dict[str, Any]], float]:
    import jax
    import jax.numpy as jnp

    from dartjax.robot import arms

    model = arms.spine_hybrid()
    plain = {name: float(getattr(model, name)) for name in ("l12", "l13", "L1", "L2", "d")}
    plain |= {name: float(getattr(model, name)) for name in ("gamma", "theta")}

    def forward(q):
        return arms.hybrid_forward(q, model)[0], arms.hybrid_jacobian(q, model)

    def inverse(pose):
        return arms.hybrid_inverse(pose, model)[0]

    rows, q = [], np.empty((0, 5))
    rng = np.random.default_rng(0)
    low, high = [550, 350, -250, -0.5, -0.5], [700, 600, -20, 0.5, 0.5]
    for size in sizes:
        poses = rng.uniform(low, high, (size, 5))
        q = np.array([_numpy_inverse(pose, plain) for pose in poses[:most]])
        every = jax.jit(jax.vmap(inverse))(jnp.asarray(poses, float))
        rows += _pair("hybrid forward + Jacobian", size, forward, every)
        rows += _pair("hybrid inverse", size, inverse, jnp.asarray(poses, float))
        loops = (("forward + Jacobian", _numpy_forward, q), ("inverse", _numpy_inverse, poses))
        for name, function, inputs in loops:
            rows.append(_loop(f"hybrid {name}", "NumPy loop", size, function, inputs[:most], plain))
    ours = jax.jit(jax.vmap(forward))(jnp.asarray(q[:100], float))
    theirs = zip(*[_numpy_forward(each, plain) for each in q[:100]], strict=True)
    gaps = [np.abs(np.stack(a) - b).max() for a, b in zip(theirs, ours, strict=True)]
    return rows, float(max(gaps))


def _arm(sizes: list[int], most: int, inverse_most: int) -> tuple[list[dict[str, Any]], float]:
    import jax
    import jax.numpy as jnp

    from dartjax.robot import arms

    chain = arms.chain_from_dh([arms.DHRow(a, alpha, d, 0.0) for a, alpha, d in ARM])

    def forward(q):
        return arms.tool_pose(q, chain).as_matrix(), arms.chain_jacobian(q, chain)

    def inverse(target_and_start):
        target, start = target_and_start
        found, _ = arms.solve_damped(target, chain, start, num_steps=STEPS, centering=0.0)
        return found.q, found.distance_mm

    rng = np.random.default_rng(1)
    rows, error = [], 0.0
    engine = _mujoco()
    for size in sizes:
        q = rng.uniform(-1.5, 1.5, (size, 7))
        rows += _pair("arm forward + Jacobian", size, forward, jnp.asarray(q, float))
        fewer = min(size, inverse_most)
        start = jnp.asarray(q[:fewer] + 0.2 * rng.standard_normal((fewer, 7)), float)
        targets = jax.jit(jax.vmap(lambda x: arms.tool_pose(x, chain)))(
            jnp.asarray(q[:fewer], float)
        )
        rows += _pair("arm inverse", fewer, inverse, (targets, start))
        if engine is None:
            continue
        rows.append(_loop("arm forward + Jacobian", "MuJoCo loop", size, engine.forward, q[:most]))
        matrices = np.asarray(jax.vmap(lambda T: T.as_matrix())(targets))
        few = list(zip(matrices, np.asarray(start), strict=True))[: max(1, most // 20)]
        rows.append(_loop("arm inverse", "MuJoCo loop", fewer, engine.inverse, few))
        ours = jax.jit(jax.vmap(forward))(jnp.asarray(q[:100], float))
        for i, theirs in enumerate(map(engine.forward, q[:100])):
            gaps = [np.abs(a - b[i]).max() for a, b in zip(theirs, ours, strict=True)]
            error = max(error, *gaps)
    return rows, float(error)


def _pair(task: str, size: int, function: Callable, inputs: Any) -> list[dict[str, Any]]:
    """Time dartjax, without compilation: one configuration jitted, more in blocks under vmap."""
    import jax

    one = jax.tree.map(lambda leaf: leaf[0], inputs) if size == 1 else inputs
    # On a CPU, blocks that fit its cache are faster than one vmap over all configurations.
    block = BLOCK if jax.default_backend() == "cpu" else size
    many = lambda x: jax.lax.map(function, x, batch_size=min(block, size))  # noqa: E731
    program = jax.jit(function if size == 1 else many).lower(one).compile()
    repeats = 200 if size == 1 else 5
    jax.block_until_ready(program(one))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(program(one))
        seconds.append(time.perf_counter() - began)
    middle = float(np.median(seconds))
    return [_row(task, "dartjax", size, size / middle, middle)]


def _loop(
    task: str, engine: str, size: int, function: Callable, inputs: Any, *rest: Any
) -> dict[str, Any]:
    """Time a plain Python loop over the configurations."""
    began = time.perf_counter()
    for each in inputs:
        function(each, *rest)
    seconds = time.perf_counter() - began
    return _row(task, engine, size, len(inputs) / seconds, seconds * size / len(inputs))


def _row(task: str, engine: str, size: int, rate: float, seconds: float) -> dict[str, Any]:
    return {"task": task, "engine": engine, "size": size, "per_second": rate, "seconds": seconds}


def _numpy_forward(q: np.ndarray, p: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Compute pose and Jacobian of the hybrid robot, the latter by inverting the inverse map's."""
    l11, l14, l3, th4, th5 = q
    base = np.hypot(l11, l14)
    along = (p["l13"] ** 2 - p["l12"] ** 2 + base**2) / (2.0 * base)
    up = np.sqrt(p["l13"] ** 2 - along**2)
    hinge = np.array([-along * l11 + up * l14, along * l14 + up * l11]) / base - [0.0, l14]
    th13 = np.arctan2(hinge[1] + l14, hinge[0])
    tilt, drop = th13 + p["gamma"] + p["theta"] + th4, p["L2"] * np.cos(th5) - p["d"] * np.sin(th5)
    arm = p["L1"] * np.array([np.cos(th13 + p["gamma"]), np.sin(th13 + p["gamma"])])
    pose = np.array(
        [
            l3 + p["d"] * np.cos(th5) + p["L2"] * np.sin(th5),
            drop * np.sin(tilt) + hinge[0] + arm[0],
            -drop * np.cos(tilt) + hinge[1] + arm[1],
            tilt,
            -th5,
        ]
    )
    rate = p["L2"] * np.sin(th5) + p["d"] * np.cos(th5)  # d(drop) / d(tilt_y), tilt_y = -th5
    wrist_y = np.array([0.0, 1.0, 0.0, -drop * np.cos(tilt), -rate * np.sin(tilt)])
    wrist_z = np.array([0.0, 0.0, 1.0, -drop * np.sin(tilt), rate * np.cos(tilt)])
    to_th13 = wrist_y / (-p["l13"] * np.sin(th13) - arm[1])
    to_hinge_z = wrist_z - arm[0] * to_th13
    to_l11 = p["l13"] * np.sin(th13) * to_th13 - hinge[1] / (l11 + hinge[0]) * to_hinge_z
    to_l14 = p["l13"] * np.cos(th13) * to_th13 - to_hinge_z
    to_l3, to_th5 = np.array([1.0, 0.0, 0.0, 0.0, drop]), np.array([0.0, 0.0, 0.0, 0.0, -1.0])
    to_th4 = np.array([0.0, 0.0, 0.0, 1.0, 0.0]) - to_th13
    return pose, np.linalg.inv(np.stack([to_l11, to_l14, to_l3, to_th4, to_th5]))


def _numpy_inverse(pose: np.ndarray, p: dict[str, float]) -> np.ndarray:
    x, y, z, tilt_x, tilt_y = pose
    drop = p["L2"] * np.cos(tilt_y) + p["d"] * np.sin(tilt_y)
    across, up = p["l13"] + p["L1"] * np.cos(p["gamma"]), p["L1"] * np.sin(p["gamma"])
    reach = (y - drop * np.sin(tilt_x)) / np.hypot(across, up)
    th13 = np.arccos(reach) - np.arctan2(up, across)
    hinge_y = p["l13"] * np.cos(th13)
    hinge_z = z + drop * np.cos(tilt_x) - p["L1"] * np.sin(th13 + p["gamma"])
    return np.array(
        [
            -hinge_y + np.sqrt(p["l12"] ** 2 - hinge_z**2),
            p["l13"] * np.sin(th13) - hinge_z,
            x - p["d"] * np.cos(tilt_y) + p["L2"] * np.sin(tilt_y),
            tilt_x - th13 - p["gamma"] - p["theta"],
            -tilt_y,
        ]
    )


class _MuJoCoArm:
    """Arm in MuJoCo: pose and Jacobian of a site, and the same inverse iteration."""

    def __init__(self, mujoco: Any) -> None:
        inner = '<site name="tool"/>'
        for a, alpha, d in reversed(ARM):
            inner = (
                f'<body><joint type="hinge" axis="0 0 1"/><geom size="1" mass="1"/>'
                f'<body pos="{a} 0 {d}" euler="{alpha} 0 0">{inner}</body></body>'
            )
        text = f'<mujoco><compiler angle="radian"/><worldbody>{inner}</worldbody></mujoco>'
        self.mujoco, self.model = mujoco, mujoco.MjModel.from_xml_string(text)
        self.data = mujoco.MjData(self.model)
        self.shift, self.turn = np.zeros((3, 7)), np.zeros((3, 7))

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.data.qpos[:] = q
        self.mujoco.mj_kinematics(self.model, self.data)
        self.mujoco.mj_comPos(self.model, self.data)
        self.mujoco.mj_jacSite(self.model, self.data, self.shift, self.turn, 0)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.data.site_xmat[0].reshape(3, 3), self.data.site_xpos[0]
        return matrix, np.vstack([self.shift, self.turn])

    def inverse(self, target_and_start: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        target, q = target_and_start
        goal, turn = np.zeros(4), np.zeros(3)
        self.mujoco.mju_mat2Quat(goal, np.ascontiguousarray(target[:3, :3]).ravel().astype(float))
        now, scale = np.zeros(4), np.array([1.0, 1.0, 1.0, 200.0, 200.0, 200.0])
        for _ in range(STEPS):
            matrix, jacobian = self.forward(q)
            self.mujoco.mju_mat2Quat(now, matrix[:3, :3].ravel())
            self.mujoco.mju_subQuat(turn, goal, now)
            error = scale * np.concatenate([target[:3, 3] - matrix[:3, 3], matrix[:3, :3] @ turn])
            scaled = scale[:, None] * jacobian
            damping = 1e-3 * np.linalg.norm(error) + 1e-3
            q = q + scaled.T @ np.linalg.solve(scaled @ scaled.T + damping**2 * np.eye(6), error)
        return q


def _mujoco() -> _MuJoCoArm | None:
    try:
        import mujoco
    except ImportError:
        print("MuJoCo is not installed (pip install mujoco): its rows are missing", file=sys.stderr)
        return None
    return _MuJoCoArm(mujoco)


def _print(rows: list[dict[str, Any]]) -> None:
    peers = {(r["task"], r["size"]): r["per_second"] for r in rows if r["engine"] != "dartjax"}
    table = []
    for row in sorted(rows, key=lambda r: (r["task"], r["size"], r["engine"])):
        peer = peers.get((row["task"], row["size"]))
        ratio = f"{row['per_second'] / peer:.1f}" if peer and row["engine"] == "dartjax" else ""
        table.append(
            [row["task"], row["engine"], f"{row['size']:,}", f"{row['per_second']:,.0f}", ratio]
        )
    columns = ["task", "engine", "configurations", "per second", "times the loop"]
    print_table("Kinematics", columns, table)


if __name__ == "__main__":
    sys.exit(main())
