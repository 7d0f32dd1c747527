"""Distribution of scans over Ray workers, on this machine or a cluster (extra `cluster`)."""

import importlib
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax

from dartjax.data import DataError

_ROOT = pathlib.Path(__file__).resolve().parents[3]
_Result = TypeVar("_Result")


def starmap_unordered(
    work: Callable[..., _Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    num_workers: int,
    address: str | None = None,
) -> Iterator[_Result]:
    """Yield the results of `work(*a)` for every `a` of `arguments` in the order of completion.

    At most `num_workers` run at a time. `work` must be a function of a module. Starts Ray on this
    machine, or connects to the cluster at `address` ("auto": the cluster of this machine), whose
    machines need this checkout and the data under the same paths. Raises the original error of a
    worker, and DataError if Ray is not installed.
    """
    ray = _import_ray()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # Ray's sockets need a short path
        _connect(ray, num_workers, address, folder)
        try:
            task = ray.remote(num_cpus=1, max_retries=0)(work)
            waiting = list(arguments)
            running = []
            while waiting or running:
                while waiting and len(running) < num_workers:
                    running.append(task.remote(*waiting.pop(0)))
                (done, *_), running = ray.wait(running, num_returns=1)
                yield _result(ray, done)
        finally:
            ray.shutdown()


def _connect(ray: Any, num_workers: int, address: str | None, folder: str) -> None:
    environment = {"PYTHONPATH": str(_ROOT)}
    if cache := getattr(jax.config, "jax_compilation_cache_dir", None):
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": num_workers,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
    with warnings.catch_warnings():
        # Ray starts processes, and JAX warns about fork.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        ray.init(
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="error",
            **options,
        )


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise DataError("Ray is not installed: pip install 'dartjax[cluster]'") from error
