"""Compare the time to register one vertebra in two X-rays: dartjax and the method of xvr.

    python -m benchmarks.registration --out runs/registration.json

Both get the same two crops of X-rays simulated from the example CT (with all other anatomy), the
same cameras and the same start, and find the pose of one vertebra:

- dartjax fits its shape model (15 modes and the pose) with the landmarks and masks of the standard
  disturbance. One case is fitted as in `experiments.reconstruct`, after compilation.
- xvr 2 (`xvr register`, its published defaults) runs on nanodrr. The vertebra is cut out of
  the patient's CT, so its shape is known exactly. It is rendered at three scales and moved by Adam
  (1e-2 rad, 1 mm, halved at each scale) to maximise the mean of multiscale NCC (whole image and
  patches of 9 px) and gradient NCC (patches of 11 px). A scale has at most 500 steps; after 5 steps
  without progress, the learning rate is divided by ten, and the third time the scale ends. The
  finest scale has 0.86 mm per pixel, like xvr's 6-fold reduction of 0.194 mm pixels.

nanodrr is searched in this Python, then in .peers (`pip install dartjax[peers]`). Ray marching uses
--samples in the box of the vertebra: 100 are 1 mm steps; xvr uses 500. CPU seconds are summed over
all threads and depend little on other load of the machine.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._timing import machine_info, print_table, versions, write_json
from benchmarks.drr import ROOT, _find_peer_python

SCALES = (4, 2, 1)  # of the crop
MAX_STEPS, PATIENCE, FACTOR, THRESHOLD, MAX_PLATEAUS = 500, 5, 0.1, 1e-4, 2
LR_ROTATION, LR_TRANSLATION = 1e-2, 1.0
MARGIN_MM = 6.0  # of CT around the vertebra


def main() -> int:
    """Print the table and write the JSON. Return 2 if nanodrr is missing."""
    options = _parse_options()
    if options.worker:
        _register(pathlib.Path(options.worker), options.samples)
        return 0
    try:
        peer_python = _find_peer_python(options.peer_python)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        exchange = pathlib.Path(folder)
        ours = _fit(exchange, options)
        theirs = _run_worker(peer_python, exchange, options)
    ratio, cpu_ratio = (theirs[key] / ours[key] for key in ("seconds", "cpu_seconds"))
    rows = [
        [
            name,
            f"{r['seconds']:.2f}",
            f"{r['cpu_seconds']:.2f}",
            str(r["steps"]),
            f"{r['shift_mm']:.2f}",
            f"{r['turn_deg']:.2f}",
        ]
        for name, r in (("dartjax", ours), ("xvr recipe on nanodrr", theirs))
    ]
    columns = ["", "seconds", "CPU seconds", "steps", "translation error mm", "rotation error deg"]
    print_table(f"{options.level} from two views of 128 x 128: {ratio:.0f} x", columns, rows)
    write_json(
        options.out,
        {
            "machine": machine_info(),
            "versions": versions("jax", "jaxlib", "dartjax"),
            "samples": options.samples,
            "dartjax": ours,
            "xvr_recipe": theirs,
            "ratio": ratio,
            "cpu_ratio": cpu_ratio,
        },
    )
    return 0


def _fit(exchange: pathlib.Path, options) -> dict[str, Any]:
    """Fit one case, and write the inputs of the other method to the folder."""
    import jax
    import jax.numpy as jnp

    from dartjax import data, metrics, simulation
    from dartjax.registration import ALONE, FIT_OPTIONS, fit
    from dartjax.simulation import Disturbance

    case = data.example_case()
    model = data.load_shape_model(options.level, path=data.shape_model_set([case.subject]))
    truth = simulation.true_vertebra(case, options.level, model)
    rng = np.random.default_rng(options.seed)
    setup = simulation.CarmSetup()
    views = simulation.random_views(rng, np.asarray(truth.pose.translation()), setup)
    radiographs = simulation.simulate(case.ct, views, setup)
    seen, start = simulation.disturbed_observations(truth, radiographs, rng, Disturbance())

    fit_options = FIT_OPTIONS[ALONE]
    program = jax.jit(lambda seen, start: fit(model, seen, start, fit_options))
    found = jax.block_until_ready(program(seen, start))
    times = []
    for _ in range(options.repeats):
        began, busy = time.perf_counter(), time.process_time()
        jax.block_until_ready(program(seen, start))
        times.append((time.perf_counter() - began, time.process_time() - busy))
    shift, turn = metrics.pose_error(found.pose, truth.pose)

    volume, affine = _vertebra_alone(case, options.level)
    crops = [jax.tree.map(lambda leaf, k=k: leaf[k], seen.cameras) for k in range(len(views))]
    np.savez(
        exchange / "case.npz",
        volume=volume,
        affine=affine,
        images=np.asarray(seen.images),
        focal=np.asarray(seen.cameras.focal_length),
        principal=np.asarray(seen.cameras.principal_point),
        sdd=np.asarray(seen.cameras.sdd),
        world_from_camera=np.stack(
            [np.asarray(c.world_from_camera.as_matrix(), np.float64) for c in crops]
        ),
        start=np.asarray((start @ truth.pose.inverse()).as_matrix(), np.float64),
        center=np.asarray(jnp.mean(truth.surface.vertices, axis=0), np.float64),
        expected=_expected(volume, affine, crops[0]),
    )
    return {
        "seconds": min(wall for wall, _ in times),
        "cpu_seconds": min(busy for _, busy in times),
        "steps": sum(scale.num_steps for scale in fit_options.scales),
        "shift_mm": float(shift),
        "turn_deg": float(turn),
    }


def _vertebra_alone(case, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Crop the attenuation of one vertebra, 0 elsewhere; also return world_from_voxel."""
    inside = case.labels == case.label_of(level)
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = (f(np.nonzero(inside), axis=1) for f in (np.min, np.max))
    pad = np.ceil(MARGIN_MM / spacing).astype(int)
    low, high = np.maximum(low - pad, 0), high + pad + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ low
    values = np.asarray(case.ct.values)[box] * inside[box]
    return np.ascontiguousarray(values, np.float32), moved


def _expected(volume: np.ndarray, affine: np.ndarray, crop) -> np.ndarray:
    import jax.numpy as jnp

    from dartjax.image import Volume
    from dartjax.render import drr

    placed = Volume(jnp.asarray(volume), jnp.asarray(affine, jnp.float32))
    return np.asarray(drr(placed, crop, num_samples=200))


def _run_worker(python: str, exchange: pathlib.Path, options) -> dict[str, Any]:
    flags = [f"--worker={exchange}", f"--samples={options.samples}"]
    command = [python, "-m", "benchmarks.registration", *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError("the registration on nanodrr failed: its messages are above")
    return json.loads(done.stdout.splitlines()[-1])


def _register(exchange: pathlib.Path, samples: int) -> None:
    """Register the volume of the vertebra; print seconds, steps and the final error."""
    import torch
    from nanodrr.data import Subject
    from nanodrr.drr import render
    from nanodrr.geometry import convert
    from torchio import ScalarImage

    torch.set_num_threads(os.cpu_count() or 1)
    with np.load(exchange / "case.npz") as stored:
        case = {key: stored[key] for key in stored.files}
    ct = ScalarImage(tensor=torch.from_numpy(case["volume"])[None], affine=case["affine"])
    subject = Subject.from_images(ct, convert_to_mu=False)
    cameras, sdd = _tensor(case["world_from_camera"]), _tensor(case["sdd"])
    # Relative to the volume, the camera moves by the inverse of the vertebra's motion.
    start = _tensor(np.linalg.inv(case["start"]))
    to_center = torch.eye(4)
    to_center[:3, 3] = _tensor(case["center"])
    images = _tensor(case["images"])[:, None]
    size = images.shape[-1]

    def project(motion, scale: int):
        k_inv = _tensor(_inverse_intrinsics(case, scale))
        return render(subject, k_inv, motion @ cameras, sdd, size // scale, size // scale, samples)

    with torch.no_grad():
        drawn = project(torch.eye(4)[None], 1)[0, 0].numpy()
    correlation = float(np.corrcoef(drawn.ravel(), case["expected"].ravel())[0, 1])
    if correlation < 0.99:
        raise RuntimeError(f"nanodrr and dartjax see different geometry: {correlation:.4f}")

    rotation = torch.zeros(1, 3).add_(1e-8).requires_grad_()
    translation = torch.zeros(1, 3).requires_grad_()

    def motion():
        delta = convert(rotation, translation, "so3_log")
        return to_center @ delta @ torch.linalg.inv(to_center) @ start

    began, busy = time.perf_counter(), time.process_time()
    steps = 0
    for stage, scale in enumerate(SCALES):
        true = torch.nn.functional.avg_pool2d(images, scale)
        groups = [
            {"params": [rotation], "lr": LR_ROTATION / 2**stage},
            {"params": [translation], "lr": LR_TRANSLATION / 2**stage},
        ]
        steps += _ascend(groups, true, lambda scale=scale: project(motion(), scale))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    with torch.no_grad():
        moved = np.linalg.inv(motion()[0].double().numpy())
    center = case["center"]
    turn = np.rad2deg(np.arccos(np.clip((np.trace(moved[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)))
    answer = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "steps": steps,
        "shift_mm": float(np.linalg.norm(moved[:3, :3] @ center + moved[:3, 3] - center)),
        "turn_deg": float(turn),
        "correlation_with_dartjax": correlation,
        "versions": versions("nanodrr", "torch"),
    }
    print(json.dumps(answer))


def _ascend(groups: list[dict[str, Any]], true, draw: Callable) -> int:
    """Optimise one scale with Adam until the third plateau; return the number of steps."""
    import torch
    from nanodrr.metrics import (
        GradientNormalizedCrossCorrelation2d,
        MultiscaleNormalizedCrossCorrelation2d,
    )

    multiscale = MultiscaleNormalizedCrossCorrelation2d([None, 9], [0.5, 0.5])
    gradient = GradientNormalizedCrossCorrelation2d(11, 0.0)
    optimizer = torch.optim.Adam(groups, maximize=True)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", FACTOR, PATIENCE, THRESHOLD
    )
    rate, plateaus = float("inf"), 0
    for step in range(1, MAX_STEPS + 1):
        optimizer.zero_grad()
        drawn = draw()
        score = 0.5 * (multiscale(true, drawn) + gradient(true, drawn)).mean()
        score.backward()
        optimizer.step()
        schedule.step(score.detach())
        if min(schedule.get_last_lr()) < rate:
            rate, plateaus = min(schedule.get_last_lr()), plateaus + 1
        if plateaus > MAX_PLATEAUS:
            return step
    return MAX_STEPS


def _tensor(values: np.ndarray):
    import torch

    return torch.from_numpy(np.asarray(values, np.float32))


def _inverse_intrinsics(case: dict[str, np.ndarray], scale: int) -> np.ndarray:
    matrices = np.zeros((len(case["focal"]), 3, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = (case["focal"] / scale).T
    matrices[:, :2, 2] = case["principal"] / scale
    matrices[:, 2, 2] = 1.0
    return np.linalg.inv(matrices)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/registration.json", help="JSON file to write")
    parser.add_argument("--level", default="T9", help="vertebra of the example CT")
    parser.add_argument("--seed", type=int, default=0, help="seed of views and disturbance")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of timings of the fit; the best is used"
    )
    parser.add_argument("--samples", type=int, default=100, help="samples per ray of nanodrr")
    parser.add_argument("--peer-python", help="Python that has nanodrr")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
