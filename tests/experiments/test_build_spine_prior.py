"""`experiments.build_spine_prior` as a user calls it, on a table of random spines."""

import json

import jax
import numpy as np
import pytest

from dartjax import data, ssm
from tests.experiments.in_process import start
from tests.ssm.test_spine_prior import points_of

PEOPLE = 60


def write_table(path):
    keys = jax.random.split(jax.random.key(2), PEOPLE)
    prior = data.load_spine_prior()
    lines = ["scan_id,source_file,level,keypoint,x_lps_mm,y_lps_mm,z_lps_mm"]
    for number, key in enumerate(keys):
        points = points_of(ssm.spine_sample(prior, key=key)) * np.array([-1.0, -1.0, 1.0])
        for level, own in zip(ssm.SPINE_LEVELS, points, strict=True):
            for name, (x, y, z) in zip(ssm.KEYPOINTS, own, strict=True):
                lines.append(f"s{number},person{number}.nii,{level},{name},{x},{y},{z}")
    path.write_text("\n".join(lines))


@pytest.mark.slow
def test_a_prior_is_built_from_a_table(tmp_path):
    table, out = tmp_path / "points.csv", tmp_path / "run"
    write_table(table)
    done = start("build_spine_prior", f"--table={table}", "--num_factors=3", f"--out={out}")
    assert done.returncode == 0, done.stderr
    built, packaged = data.load_spine_prior(path=out), data.load_spine_prior()
    spread = np.hypot(np.linalg.norm(packaged.loadings, axis=1), packaged.noise)
    assert np.median(np.abs(built.mean - packaged.mean) / spread) < 2.0 / np.sqrt(PEOPLE)
    card = data.spine_prior_card(out)
    assert card["num_people"] == PEOPLE and "VerSe" not in json.dumps(card["sources"])
    summary = json.loads((out / "metrics.json").read_text())["summary"]
    assert summary["median_mm_prior"] < summary["median_mm_mean_curve"]
    assert "| all |" in (out / "tables.md").read_text() and (out / "spines.png").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [((), "--table is required"), (("--table=/nowhere.csv",), "no such file")],
)
def test_mistakes_are_one_clear_line(flags, message, tmp_path):
    done = start("build_spine_prior", *flags, f"--out={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
