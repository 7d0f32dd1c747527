"""What a user with nothing but the installed package does first, in an empty folder.

python wheel_check.py REPOSITORY    (for the code in its README and docs, which is run as it stands)
"""

import json
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
from PIL import Image

import dartjax
from dartjax import data, pipeline, simulation, synthverse, transforms

LEVELS = ("T11", "T12", "L1")


def main(repository: pathlib.Path) -> None:
    """Every check prints a line; the first that fails ends all."""
    assert "site-packages" in dartjax.__file__, dartjax.__file__
    check_front_door()
    check_demo()
    case, why_synthetic = synthverse.demo_case()
    levels = [level for level in LEVELS if level in case.levels]
    write_xrays(case, levels)
    check_own_xrays(repository, levels)
    check_packaged(repository, case, levels[-1:])
    print("all well", "(on synthetic anatomy)" if why_synthetic else "(on the example chest CT)")


def check_front_door() -> None:
    """The import, --help, info and weights cost little."""
    seconds = min(
        timed(
            sys.executable, "-c", "import dartjax; print(dartjax.reconstruct, dartjax.__version__)"
        )
        for _ in range(3)
    )
    print(f"import dartjax: {seconds:.2f} s")
    assert seconds < 0.3
    for arguments in (["--help"], ["reconstruct", "--help"], ["weights"]):
        seconds = timed(*command(), *arguments)
        print(f"dartjax {' '.join(arguments)}: {seconds:.2f} s")
        assert seconds < 2.0


def check_demo() -> None:
    """The demo, as good as it is said to be."""
    run("demo", "--out=demo")
    metrics = json.loads(pathlib.Path("demo/metrics.json").read_text())
    summary, kind = metrics["summary"], metrics["record"]["dataset_kind"]
    dice, coverage = summary["dice_mean"], summary["coverage"]
    print(f"dartjax demo ({kind}): Dice {dice:.4f}, coverage {coverage:g}")
    assert dice > 0.8 and coverage > 0.9
    assert pathlib.Path("demo/report.html").stat().st_size > 1e5
    assert pathlib.Path("demo/spine.json").is_file()


def write_xrays(case: data.Case, levels: list[str]) -> None:
    """Two X-rays as PNG, their cameras, and rough starts, as a user would have them."""
    truths = simulation.true_vertebrae(case, levels)
    rng, setup = np.random.default_rng(0), simulation.CarmSetup()
    views = simulation.random_views(rng, simulation.middle_of(truths), setup)
    for name, xray in zip("ab", simulation.simulate(case.ct, views, setup), strict=True):
        Image.fromarray(data.encode_radiograph(np.asarray(xray.image))).save(f"{name}.png")
    data.save_cameras("cameras.json", views)
    turn, shift = np.array([0.05, 0.0, 0.05]), np.array([3.0, -2.0, 2.0])
    poses = {truth.level: transforms.perturb(truth.pose, turn, shift) for truth in truths}
    data.save_starts("init.json", poses)


def check_own_xrays(repository: pathlib.Path, levels: list[str]) -> None:
    """From two PNG files to spine.json, by the command and by the code of the README."""
    seconds = timed(*command(), "info", "a.png", "cameras.json", "init.json")
    print(f"dartjax info: {seconds:.2f} s")
    assert seconds < 2.0
    run("reconstruct", "a.png", "b.png", "--cameras=cameras.json", "--init=init.json", "--out=own")
    spine = json.loads(pathlib.Path("own/spine.json").read_text())
    assert [vertebra["level"] for vertebra in spine["vertebrae"]] == levels
    for vertebra in spine["vertebrae"]:
        assert vertebra["abstained"] or data.load_mesh(pathlib.Path("own") / vertebra["mesh"])
    assert pathlib.Path("own/report.html").is_file()
    for code in blocks(repository / "README.md"):
        exec(code, {})
    assert pathlib.Path("spine/spine.json").is_file()


def check_packaged(repository: pathlib.Path, case: data.Case, levels: list[str]) -> None:
    """The failure model and the networks, by the code of the docs, on one vertebra."""
    data.find_subjects = lambda folder: [case.subject]
    data.load_case = lambda subject: case
    study = pipeline.Study
    pipeline.Study = lambda **given: study(levels=tuple(levels), baselines=False, **given)
    for page in ("uncertainty.md", "learning.md"):
        (code,) = (c for c in blocks(repository / "docs" / page) if "find_subjects" in c)
        exec(code.replace("case.levels", str(levels)), {})


def blocks(page: pathlib.Path) -> list[str]:
    """Every Python block of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def command() -> list[str]:
    """The console command that was installed beside this Python."""
    return [str(pathlib.Path(sys.executable).with_name("dartjax"))]


def run(*arguments: str) -> None:
    """A command that must succeed; what it says is shown if it does not."""
    done = subprocess.run([*command(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"dartjax {' '.join(arguments)}: {done.stdout}\n{done.stderr}"


def timed(*arguments: str) -> float:
    """Seconds that a command takes."""
    started = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
