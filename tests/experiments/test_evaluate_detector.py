"""`experiments.evaluate_detector` on images of a user: rows, tables, pictures, and bad input."""

import json

import numpy as np
from PIL import Image

from tests.experiments.in_process import start


def test_images_with_and_without_boxes(tmp_path):
    """The packaged detector finds nothing in noise: the drawn box is missed."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (64, 80)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.3 0.2\n")
    done = start("evaluate_detector", f"--images={tmp_path}", f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [case["image"] for case in metrics["cases"]] == ["a", "b"]
    assert metrics["summary"]["body_recall"] == 0.0
    assert metrics["record"]["dataset_kind"] == "real_xray"
    assert "Real radiographs" in (tmp_path / "run" / "tables.md").read_text()
    assert Image.open(tmp_path / "run" / "images.png").size[0] > 100


def test_what_is_missing_is_told(tmp_path):
    nothing = start("evaluate_detector", f"--out={tmp_path / 'run'}")
    assert nothing.returncode != 0 and "give --cohort=FOLDER" in nothing.stderr
    (tmp_path / "empty").mkdir()
    flags = f"--images={tmp_path / 'empty'}", f"--out={tmp_path / 'run2'}"
    empty = start("evaluate_detector", *flags)
    assert empty.returncode != 0 and "has no images" in empty.stderr
