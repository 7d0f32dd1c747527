"""Compare the speed of ray-cast DRRs of a chest CT: dartjax, nanodrr and DiffDRR.

    python -m benchmarks.drr --out runs/drr.json

Every implementation runs in its own process on the same cores, with the same volume, camera and
number of samples per ray (trilinear, float32). The implementations are timed in turn in every
repeat, so that other load of the machine affects all of them. "Gradient" is the image, its sum, and
the derivatives of the sum with respect to the six pose parameters of the library. Before the
timing, the images of the other libraries must correlate with that of dartjax above 0.999.

The other libraries may be in another Python (`--peer-python`); default: this one or `.peers/`.
"""

import argparse
import importlib.util
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

from benchmarks._timing import machine_info, print_table, summarize, versions, write_json

ROOT = pathlib.Path(__file__).parent.parent
SDD, SOURCE_TO_ISOCENTER, PIXEL = 1020.0, 700.0, 2.0
MIN_CORRELATION = 0.999
Renders = tuple[Callable[[], np.ndarray], Callable[[], None]]


def main() -> int:
    """Run the comparison. Return 0 if the images agree, 1 if not, 2 for bad usage."""
    options = _parse_options()
    if options.worker:
        _serve(options)
        return 0
    try:
        peer_python = _find_peer_python(options.peer_python)
        volume = _load_volume(options.ct)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        exchange = pathlib.Path(folder)
        np.save(exchange / "values.npy", np.asarray(volume.values))
        np.save(exchange / "affine.npy", np.asarray(volume.world_from_voxel))
        pythons = {"dartjax": sys.executable, "nanodrr": peer_python, "DiffDRR": peer_python}
        workers = {
            name: _Worker(name, python, exchange, options) for name, python in pythons.items()
        }
        try:
            return _compare(workers, exchange, options, volume.values.shape)
        finally:
            for worker in workers.values():
                worker.close()


def _compare(workers, exchange, options, shape) -> int:
    images = {name: np.load(exchange / f"{name}.npy") for name in workers}
    correlation = {
        name: float(np.corrcoef(image.ravel(), images["dartjax"].ravel())[0, 1])
        for name, image in images.items()
    }
    difference = {
        name: float(np.abs(image - images["dartjax"]).max()) for name, image in images.items()
    }
    if min(correlation.values()) <= MIN_CORRELATION:
        print(
            f"the images differ (too few --samples?), nothing was timed: {correlation}",
            file=sys.stderr,
        )
        return 1
    timings = {kind: {name: [] for name in workers} for kind in ("forward", "gradient")}
    for kind, by_name in timings.items():
        for _ in range(options.repeats):
            for name, worker in workers.items():
                by_name[name].append(worker.time(kind))
    results = {
        name: {
            "correlation_with_dartjax": correlation[name],
            "max_difference_to_dartjax": difference[name],
            "versions": worker.versions,
            **{kind: summarize(timings[kind][name]) for kind in timings},
        }
        for name, worker in workers.items()
    }
    _report(results, options, shape)
    return 0


def _report(results: dict[str, Any], options, shape: tuple[int, ...]) -> None:
    ratios = {
        kind: {
            name: result[kind]["median_seconds"] / results["dartjax"][kind]["median_seconds"]
            for name, result in results.items()
        }
        for kind in ("forward", "gradient")
    }
    rows = []
    for name, result in results.items():
        row = [name, f"{result['correlation_with_dartjax']:.6f}"]
        for kind in ("forward", "gradient"):
            row += [f"{1e3 * result[kind]['median_seconds']:.0f}", f"{ratios[kind][name]:.1f}"]
        rows.append(row)
    size, samples = options.size, options.samples
    title = f"DRR {size} x {size}, {samples} samples a ray, CT {shape}, {options.threads} threads"
    columns = ["", "correlation", "image ms", "x dartjax", "image + pose gradient ms", "x dartjax"]
    print_table(title, columns, rows)
    if options.out:
        settings = {
            "ct": options.ct or "example case",
            "ct_shape": list(shape),
            "image_size": [size, size],
            "num_samples": samples,
            "threads": options.threads,
            "sdd_mm": SDD,
            "source_to_isocenter_mm": SOURCE_TO_ISOCENTER,
            "pixel_spacing_mm": PIXEL,
        }
        payload = {
            "settings": settings,
            "machine": machine_info(),
            "results": results,
            "ratio_to_dartjax": ratios,
        }
        write_json(options.out, payload)


class _Worker:
    """Implementation in its own process, timed on request over pipes."""

    def __init__(self, name: str, python: str, exchange: pathlib.Path, options) -> None:
        numbers = ("size", "samples", "threads")
        flags = [f"--{key}={getattr(options, key)}" for key in numbers]
        self.name = name
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.drr", "--worker", name, f"--exchange={exchange}", *flags],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def time(self, kind: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"{self.name} ended early: its messages are above")


def _serve(options) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    exchange = pathlib.Path(options.exchange)
    values, affine = np.load(exchange / "values.npy"), np.load(exchange / "affine.npy")
    make = {"dartjax": _dartjax, "nanodrr": _nanodrr, "DiffDRR": _diffdrr}[options.worker]
    image, gradient = make(values, affine, options)
    calls = {"forward": image, "gradient": gradient}
    np.save(exchange / f"{options.worker}.npy", image())
    for call in (image, gradient, gradient):  # compile and warm up
        call()
    answer = versions("dartjax", "jax", "jaxlib", "nanodrr", "diffdrr", "torch")
    print("answer", json.dumps(answer), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        calls[line.strip()]()
        print("answer", time.perf_counter() - start, flush=True)


def _dartjax(values: np.ndarray, affine: np.ndarray, options) -> Renders:
    import dataclasses

    import jax
    import jax.numpy as jnp

    from dartjax import camera, transforms
    from dartjax.image import Volume
    from dartjax.render import drr

    volume = Volume(jnp.asarray(values), jnp.asarray(affine))
    start = camera.from_carm(
        transforms.view_rotation("AP"),
        volume.center,
        sdd=SDD,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        pixel_spacing=PIXEL,
        image_size=(options.size, options.size),
    )

    def render(pose, volume):
        moved = transforms.SE3.exp(pose) @ start.camera_from_world
        cam = dataclasses.replace(start, camera_from_world=moved)
        return drr(volume, cam, num_samples=options.samples)

    image = jax.jit(render)
    gradient = jax.jit(jax.value_and_grad(lambda pose, volume: render(pose, volume).sum()))
    pose = jnp.zeros(6)
    return (
        lambda: np.asarray(image(pose, volume)),
        lambda: jax.block_until_ready(gradient(pose, volume)) and None,
    )


def _nanodrr(values: np.ndarray, affine: np.ndarray, options) -> Renders:
    import torch
    from nanodrr.camera import make_k_inv, make_rt_inv
    from nanodrr.data import Subject
    from nanodrr.drr import render
    from torchio import ScalarImage

    torch.set_num_threads(options.threads)
    ct = ScalarImage(tensor=torch.from_numpy(values)[None], affine=affine)
    subject = Subject.from_images(ct, convert_to_mu=False)
    size = options.size
    k_inv = make_k_inv(SDD, PIXEL, PIXEL, 0.0, 0.0, size, size)
    sdd = torch.tensor([SDD])
    rotation = torch.zeros(1, 3)
    translation = torch.tensor([[0.0, SOURCE_TO_ISOCENTER, 0.0]])

    def project(rotation, translation):
        pose = make_rt_inv(rotation, translation, "AP", subject.isocenter)
        return render(subject, k_inv, pose, sdd, size, size, n_samples=options.samples)

    return _torch_renders(project, rotation, translation)


def _diffdrr(values: np.ndarray, affine: np.ndarray, options) -> Renders:
    import torch
    from diffdrr.data import read
    from diffdrr.drr import DRR
    from torchio import ScalarImage

    torch.set_num_threads(options.threads)
    ct = ScalarImage(tensor=torch.from_numpy(values)[None], affine=affine)
    model = DRR(
        read(ct, orientation="AP"), sdd=SDD, height=options.size, delx=PIXEL, renderer="trilinear"
    )
    model.density = torch.from_numpy(values)  # unchanged, without DiffDRR's conversion from HU
    rotation = torch.zeros(1, 3)
    translation = torch.tensor([[0.0, SOURCE_TO_ISOCENTER, 0.0]])

    def project(rotation, translation):
        return model(
            rotation,
            translation,
            parameterization="euler_angles",
            convention="ZXY",
            n_points=options.samples,
        )

    return _torch_renders(project, rotation, translation)


def _torch_renders(project: Callable, rotation, translation) -> Renders:
    import torch

    def image() -> np.ndarray:
        with torch.no_grad():
            return project(rotation, translation)[0, 0].numpy()

    def gradient() -> None:
        pose = [p.clone().requires_grad_() for p in (rotation, translation)]
        torch.autograd.grad(project(*pose).sum(), pose)

    return image, gradient


def _find_peer_python(given: str | None) -> str:
    if given or importlib.util.find_spec("nanodrr"):
        return given or sys.executable
    candidate = ROOT / ".peers" / "bin" / "python"
    if not candidate.is_file():
        raise FileNotFoundError(
            "nanodrr and diffdrr are not installed: `pip install dartjax[peers]`, or make a "
            f"virtual environment with them in {ROOT / '.peers'} or give one by --peer-python"
        )
    return str(candidate)


def _load_volume(path: str | None):
    from dartjax.data import example_case, load_ct

    return load_ct(path) if path else example_case().ct


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ct", help="CT in Hounsfield units, NIfTI (default: the example case)")
    parser.add_argument("--out", help="JSON file for the results")
    parser.add_argument("--size", type=int, default=200, help="pixels along each side")
    parser.add_argument("--samples", type=int, default=500, help="samples per ray")
    parser.add_argument(
        "--repeats", type=int, default=7, help="number of timings; the median is shown"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores per implementation")
    parser.add_argument("--peer-python", help="Python that has nanodrr and diffdrr")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--exchange", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
