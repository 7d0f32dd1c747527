"""Compare the speed of splatting a vertebra: back-ends of dartjax, dense JAX, dense PyTorch.

    python -m benchmarks.splat --out runs/splat.json

One view has 2,048 vertices, three channels, and shows 110 mm. "Gradient" is the sum of squares of
the channels, with its derivative with respect to every vertex. The dense forms evaluate every splat
at every pixel. PyTorch gets the projected Gaussians of dartjax as inputs, so its time excludes the
projection (in its favour). PyTorch may be in another Python (`--peer-python`), by default
`.peers/`; without it, its row is missing and a message says so.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks._timing import machine_info, print_table, summarize, versions, write_json

ROOT = pathlib.Path(__file__).parent.parent
WINDOWS = {64: 7, 128: 11, 256: 21}  # about 3.4 sigma to each side
DENSE_REPEATS = {128: 3, 256: 1}  # a dense gradient at 256 takes many seconds
WIDTH_MM = 110.0


def main() -> int:
    """Print the table and write the JSON. Return 1 if the back-ends disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="runs/splat.json", help="JSON file to write")
    parser.add_argument("--sizes", default="64,128,256", help="image sizes in pixels")
    parser.add_argument("--peer-python", default=str(ROOT / ".peers/bin/python"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_torch_dense(pathlib.Path(options.worker))))
        return 0
    results, rows, agree = {}, [], True
    for size in map(int, options.sizes.split(",")):
        timings, same = _time_size(size, options.peer_python)
        results[size] = timings
        agree &= same
        rows += _rows(size, timings)
    columns = ["pixels", "form", "forward ms", "gradient ms", "dense JAX gradient / this"]
    print_table("One view, 2,048 vertices, three channels", columns, rows)
    record = {"machine": machine_info(), "versions": versions("jax", "jaxlib", "dartjax")}
    write_json(options.out, {**record, "results": results, "backends_agree": agree})
    return 0 if agree else 1


def _rows(size: int, timings: dict[str, dict[str, dict]]) -> list[list[str]]:
    dense = timings["dense JAX"]["gradient"]["median_seconds"]
    rows = []
    for name, both in timings.items():
        forward, gradient = (both[k]["median_seconds"] for k in ("forward", "gradient"))
        ratio = f"{dense / gradient:.0f}"
        rows.append([str(size), name, f"{1e3 * forward:.2f}", f"{1e3 * gradient:.2f}", ratio])
    return rows


def _time_size(size: int, peer_python: str) -> tuple[dict[str, dict[str, dict]], bool]:
    import jax
    import jax.numpy as jnp

    from dartjax import camera, data, transforms
    from dartjax.render import SplatOptions, splat

    model = data.load_shape_model("L1")
    view = camera.from_carm(transforms.carm_rotation(0.5, 0.1), jnp.zeros(3))
    view = camera.region_around(
        view, jnp.mean(model.mean_shape, 0), width_mm=WIDTH_MM, num_pixels=size
    )
    window = WINDOWS.get(size, max(9, size // 10))
    forms = {
        "windowed": SplatOptions(window=window),
        "separable, rank 1": SplatOptions(backend="separable", rank=1),
        "separable, rank 6": SplatOptions(backend="separable", rank=6),
        "dense JAX": SplatOptions(backend="dense"),
    }
    timings, images = {}, {}
    for name, form in forms.items():
        render = jax.jit(lambda v, form=form: splat(v, model.faces, view, form))
        loss = jax.jit(
            jax.value_and_grad(
                lambda v, form=form: sum(
                    jnp.sum(x**2) for x in jax.tree.leaves(splat(v, model.faces, view, form))
                )
            )
        )
        images[name] = np.asarray(render(model.mean_shape).thickness)
        repeats = DENSE_REPEATS.get(size, 15) if name == "dense JAX" else 60
        timings[name] = {
            kind: summarize(
                _repeat(lambda f=f: jax.block_until_ready(f(model.mean_shape)), repeats)
            )
            for kind, f in (("forward", render), ("gradient", loss))
        }
    peer = _run_torch(model, view, size, peer_python)
    if peer:
        timings["dense PyTorch"] = peer
    error = np.abs(images["windowed"] - images["dense JAX"]).max() / images["dense JAX"].max()
    return timings, bool(error < 0.01)


def _repeat(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def _run_torch(model, view, size: int, python: str) -> dict[str, dict] | None:
    from dartjax.render import project_gaussians, surface_patches

    if not pathlib.Path(python).exists():
        print(f"no PyTorch at {python}: its row is missing", file=sys.stderr)
        return None
    patches = surface_patches(model.mean_shape, model.faces, smoothing=0.4, shell_thickness=0.5)
    gaussians = project_gaussians(view, patches.mean, patches.covariance, antialias=0.3)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "gaussians.npz"
        np.savez(path, mean=gaussians.mean, covariance=gaussians.covariance, size=size)
        command = [python, "-m", "benchmarks.splat", f"--worker={path}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"PyTorch failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _torch_dense(path: pathlib.Path) -> dict[str, dict]:
    """Time the dense accumulation of two weighted channels and the silhouette in PyTorch."""
    import torch

    stored = np.load(path)
    size = int(stored["size"])
    mean, covariance = (torch.tensor(stored[k], requires_grad=True) for k in ("mean", "covariance"))
    weights = torch.ones((len(mean), 2), requires_grad=True)
    pixel = torch.arange(size) + 0.5

    def channels():
        uu, uv, vv = covariance.T
        determinant = uu * vv - uv**2
        x = (pixel[None] - mean[:, :1])[:, None, :]
        y = (pixel[None] - mean[:, 1:])[:, :, None]
        a, b, c = (k[:, None, None] / determinant[:, None, None] for k in (vv, -uv, uu))
        kernel = torch.exp(-0.5 * (a * x * x + c * y * y) - b * x * y)
        scaled = weights / (2 * torch.pi * determinant.sqrt())[:, None]
        shell, thickness = torch.einsum("nhw,nc->chw", kernel, scaled)
        return shell, thickness, 1 - torch.exp(-4 * shell)

    def gradient():
        loss = sum((image**2).sum() for image in channels())
        torch.autograd.grad(loss, (mean, covariance, weights))

    def forward():
        with torch.no_grad():
            channels()

    repeats = DENSE_REPEATS.get(size, 15)
    return {
        "forward": summarize(_repeat(forward, repeats)),
        "gradient": summarize(_repeat(gradient, repeats)),
    }


if __name__ == "__main__":
    sys.exit(main())
