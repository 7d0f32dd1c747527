"""`experiments.reconstruct` as a user calls it: own X-rays, a cohort, and mistakes."""

import dataclasses
import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, pipeline, registration, simulation, ssm, transforms
from dartjax.observations import LANDMARK_NAMES
from dartjax.render import SplatOptions, splat, two_compartment
from experiments.reconstruct import ablation
from experiments.reconstruct.settings import Settings
from tests.experiments.in_process import start

CENTER = [10.0, -20.0, 150.0]


def reconstruct(*flags):
    return start("reconstruct", *flags)


def write_views(folder, primary_deg):
    """Two X-rays of a known L3, their cameras and a disturbed initial estimate."""
    model = data.load_shape_model("L3")
    pose = transforms.SE3.from_translation(jnp.array(CENTER))
    shape = ssm.posed(model, pose, jnp.zeros(15).at[1].set(0.8))
    entries = []
    for i, angle in enumerate(primary_deg):
        entry = {
            "primary_deg": angle,
            "secondary_deg": 5.0,
            "sdd": 1020.0,
            "source_to_isocenter": 600.0,
            "isocenter": CENTER,
            "pixel_spacing": 0.8,
            "image_size": [320, 320],
        }
        rotation = transforms.carm_rotation(*np.deg2rad([angle, 5.0]))
        view = camera.from_carm(
            rotation,
            jnp.array(CENTER),
            sdd=1020.0,
            source_to_isocenter=600.0,
            pixel_spacing=0.8,
            image_size=(320, 320),
        )
        render = jax.jit(lambda v, c=view: splat(v, model.faces, c, SplatOptions(window=21)))
        np.save(folder / f"{i}.npy", np.asarray(two_compartment(render(shape))))
        entries.append(entry)
    (folder / "cameras.json").write_text(json.dumps({"cameras": entries}))
    landmarks = ssm.landmarks(model, shape)
    names = ("superior_endplate_center", "spinous_tip", "left_transverse_tip", "left_waist")
    points = {n: (landmarks[_index(n)] + 1.0).tolist() for n in names}
    (folder / "init.json").write_text(json.dumps({"landmarks_world": points}))
    return model, shape


def _index(name):
    return LANDMARK_NAMES.index(name)


def own_xrays(folder, *extra):
    return reconstruct(
        f"--xrays={folder / '0.npy'},{folder / '1.npy'}",
        f"--cameras={folder / 'cameras.json'}",
        f"--init={folder / 'init.json'}",
        f"--out={folder / 'run'}",
        *extra,
    )


@pytest.mark.slow
def test_own_xrays(tmp_path):
    model, shape = write_views(tmp_path, (-40.0, 50.0))
    done = own_xrays(tmp_path, "--level=L3")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} >= {
        "config.json",
        "metrics.json",
        "paths.json",
        "report.html",
        "meshes",
    }
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["record"]["dataset_kind"] == "real_xray"
    (case,) = metrics["cases"]
    assert case["level"] == "L3"
    assert case["status"] == "converged"
    assert case["dice"] is None
    assert "no ground truth" in case["dice_reason"]
    (vertebra,) = json.loads((run / "spine.json").read_text())["vertebrae"]
    assert vertebra["level"] == "L3" and not vertebra["abstained"]
    fitted = data.load_mesh(run / vertebra["mesh"])
    error = np.linalg.norm(np.asarray(fitted.vertices) - np.asarray(shape), axis=1)
    assert error.mean() < 1.5
    paths = json.loads((run / "paths.json").read_text())["paths"]["xrays_L3_pair1"]
    expected = np.asarray(ssm.paths(model, shape))
    left = np.asarray(paths["left"]["target_point"])
    assert np.linalg.norm(left - expected[0, 1]) < 3.0


@pytest.mark.slow
def test_nearly_parallel_views_are_flagged_and_warned_of(tmp_path):
    write_views(tmp_path, (0.0, 9.0))
    done = own_xrays(tmp_path, "--level=L3")
    assert done.returncode == 0, done.stderr
    assert "nearly parallel" in done.stderr
    (case,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["cases"]
    assert "parallel" in case["status"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "exactly one of --demo"),
        (("--xrays=a.png,b.png",), "also needs --cameras"),
        (("--cohort=no/such/folder",), "no/such/folder"),
        (("--demo", "--levels=T99"), "T99"),
        (("--demo", "--observations=guessed"), "observations"),
        (("--demo", "--detector=stress"), "only for --observations=simulated"),
    ],
)
def test_mistakes_get_one_clear_message(flags, message, tmp_path):
    done = reconstruct(f"--out={tmp_path / 'run'}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_all_black_image_is_rejected(tmp_path):
    write_views(tmp_path, (-40.0, 50.0))
    np.save(tmp_path / "1.npy", np.zeros((320, 320), np.float32))
    done = own_xrays(tmp_path, "--level=L3")
    assert done.returncode == 2
    assert "1.npy" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_from_simulated_detections(tmp_path):
    done = reconstruct(
        "--demo",
        "--levels=T9",
        "--pairs=2",
        "--observations=simulated",
        "--views=orthogonal",
        "--nobaselines",
        f"--out={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    summary = metrics["summary"]
    assert {"coverage", "dice_mean_failures_zero", "seconds_per_vertebra"} <= summary.keys()
    assert summary["failure_auroc"] is None and "at least 30" in summary["failure_auroc_reason"]
    shares = [value for key, value in summary.items() if key.startswith("share_tier_")]
    assert sum(shares) == pytest.approx(1.0)
    for case in metrics["cases"]:
        assert case["tier"] != "disturbed"
        assert (case["dice"] is None) == case["status"].startswith("abstained")
    assert "by initialisation tier" in (tmp_path / "run" / "tables.md").read_text()


@pytest.mark.slow
def test_demo_on_one_level(tmp_path):
    done = reconstruct("--demo", "--levels=T9", "--seed=3", f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (case,) = metrics["cases"]
    assert case["masd_mm"] < 0.5 * case["masd_start_mm"]
    assert case["dice"] > case["dice_landmarks"]
    assert case["dice"] < case["oracle_dice"] < 1.0
    assert metrics["record"]["ssm_leak"] is False


def test_the_choices_are_what_the_library_knows():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(Settings)}
    assert choices["recipe"] == tuple(pipeline.RECIPES)
    assert choices["detector"] == tuple(simulation.DETECTORS)
    assert choices["pixels"] == typing.get_args(data.Kind)


def test_each_row_of_the_ablation_lacks_one_thing():
    study = pipeline.Study(baselines=False, extra=tuple(ablation.ABLATION))
    assert study.methods == (*ablation.ABLATION, registration.JOINT)
    full = registration.FIT_OPTIONS[registration.JOINT]
    lacking = {}
    for name, fitter in ablation.ABLATION.items():
        options, others = fitter.args[0], fitter.keywords.get("with_neighbours", True)
        own, whole = (dataclasses.asdict(each.weights) for each in (options, full))
        own["shape_coupling"], whole["shape_coupling"] = options.shape_coupling, full.shape_coupling
        own["others"], whole["others"] = float(others), 1.0
        lacking[name] = [term for term in whole if own[term] != whole[term]]
        assert all(own[term] == 0.0 for term in lacking[name])
    terms = [
        "similarity",
        "silhouette",
        "landmarks",
        "prior",
        "neighbours",
        "shape_coupling",
        "others",
    ]
    assert list(lacking.values()) == [[term] for term in terms]


def test_rows_of_the_ablations_have_names_of_their_own():
    extra = [*ablation.ABLATION, *ablation.LIMITS]
    assert len({*extra, *pipeline.RECIPES.values(), *pipeline.FITTED_ALONE}) == len(extra) + len(
        {*pipeline.RECIPES.values(), *pipeline.FITTED_ALONE}
    )


def test_only_images_of_one_vertebra_are_fitted_without_neighbours():
    alone = [
        name for name, fitter in ablation.LIMITS.items() if not fitter.args[1].neighbours_rendered
    ]
    assert alone == ["true isolation"]
