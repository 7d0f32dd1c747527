"""The report page: self-contained and complete; the data of the viewer; decimation."""

import base64
import json
import re
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from dartjax import report
from dartjax.report import _viewer

RECORD = {
    "dataset": "phantoms",
    "dataset_kind": "synthetic",
    "ssm_leak": False,
    "ssm_excludes": [],
    "seed": 3,
}


def ball(subdivisions=3, center=(0.0, 0.0, 0.0), radius=20.0):
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.asarray(sphere.vertices) + center, np.asarray(sphere.faces)


def make_report(**changes):
    vertices, faces = ball()
    values = {
        "title": "Two <X-rays>",
        "record": RECORD,
        "summary": {"masd_mm": 0.8214, "hd95_mm": float("nan"), "hd95_mm_reason": "no <fit>"},
        "columns": [report.Column("level", "Level"), report.Column("dice", "Dice", digits=3)],
        "rows": [{"level": "L1", "dice": jnp.float32(0.9)}, {"level": "L</td>2", "dice": None}],
        "cases": [
            report.ReportCase(
                "subject</script>",
                figures=[report.Figure(report.radiograph_figure(np.eye(20)), "AP view")],
                meshes=[report.ViewerMesh("L1</script>", "reconstruction", vertices, faces)],
                paths=[report.ViewerPath("L1", np.zeros(3), np.ones(3), 1.5)],
            )
        ],
    }
    return report.Report(**{**values, **changes})


@pytest.fixture
def page(tmp_path):
    return report.write_html(make_report(), tmp_path / "report.html").read_text()


def test_the_page_loads_nothing(page):
    sources = re.findall(r"""(?:src|href|action|poster|data)\s*=\s*["']([^"']*)""", page)
    assert sources and all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", page)
    assert "default-src 'none'" in page


def test_no_placeholder_is_left_and_text_is_escaped(page):
    assert "{{" not in page
    assert "Two &lt;X-rays&gt;" in page and "L&lt;/td&gt;2" in page and "no &lt;fit&gt;" in page
    assert page.count("<script") == page.count("</script>") == 3


def test_numbers_carry_units_digits_and_reasons(page):
    assert '0.82 <span class="unit">mm</span>' in page
    assert '<td class="number" data-sort="0.899' in page and ">0.900</td>" in page
    assert 'title="no &lt;fit&gt;"' in page
    assert ">nan" not in page.lower()


def test_the_kind_of_data_is_said_by_the_page_itself(tmp_path):
    def banners(**record):
        made = make_report(record={**RECORD, **record})
        page = report.write_html(made, tmp_path / "report.html").read_text()
        return " ".join(re.findall(r'<p class="banner.*?</p>', page))

    assert '"banner warn"' in banners() and "SYNTHETIC ANATOMY" in banners()
    assert "SYNTHETIC" not in banners(dataset_kind="real_ct_drr")
    assert "simulated from a real CT" in banners(dataset_kind="real_ct_drr")
    assert '"banner bad"' in banners(ssm_leak=True) and '"banner bad"' not in banners()


def test_a_page_without_cases_or_rows_is_whole(tmp_path):
    bare = make_report(rows=[], columns=[], cases=[], summary={})
    page = report.write_html(bare, tmp_path / "report.html").read_text()
    assert "WebGL" not in page and "{{" not in page and page.rstrip().endswith("</html>")


def test_a_scene_decodes_to_its_mesh_and_path():
    vertices, faces = ball(center=(-120.0, 35.0, 800.0))
    mesh = report.ViewerMesh("T5", "ground truth", vertices, faces, "#112233", 0.3, False)
    path = report.ViewerPath("T5", jnp.zeros(3), jnp.array([0.0, 40.0, 0.0]), 1.75)
    scene = json.loads(_viewer.scene_json([mesh], [path]))
    (stored,), (stored_path,) = scene["meshes"], scene["paths"]
    steps = np.frombuffer(base64.b64decode(stored["vertices"]), "<u2").reshape(-1, 3)
    decoded = np.array(stored["origin"]) + steps * np.array(stored["step"])
    np.testing.assert_allclose(decoded, vertices, atol=4e-4)  # half of 40 mm / 65535
    indices = np.frombuffer(base64.b64decode(stored["faces"]), "<u2").reshape(-1, 3)
    np.testing.assert_array_equal(indices, faces)
    assert (stored["level"], stored["opacity"], stored["visible"]) == ("T5", 0.3, False)
    assert stored_path["target"] == [0.0, 40.0, 0.0] and stored_path["radius"] == 1.75


def test_a_mesh_of_many_vertices_takes_wide_indices():
    vertices, faces = ball(subdivisions=7)  # 163842 vertices
    scene = json.loads(_viewer.scene_json([report.ViewerMesh("L1", "a", vertices, faces)], []))
    stored = scene["meshes"][0]
    assert stored["wide"] is True
    indices = np.frombuffer(base64.b64decode(stored["faces"]), "<u4").reshape(-1, 3)
    np.testing.assert_array_equal(indices, faces)


def test_coordinates_that_are_not_finite_are_rejected_by_name():
    path = report.ViewerPath("T7", np.array([np.nan, 0, 0]), np.ones(3), 1.0)
    with pytest.raises(ValueError, match="needle paths of T7"):
        _viewer.scene_json([], [path])


@pytest.mark.parametrize("max_faces", [4000, 8000])
def test_decimation_keeps_the_shape_within_the_limit(max_faces):
    vertices, faces = ball(subdivisions=6)  # 81920 faces
    few_vertices, few_faces = report.decimate(vertices, faces, max_faces)
    assert 0.7 * max_faces < len(few_faces) <= max_faces
    assert set(np.unique(few_faces)) <= set(range(len(few_vertices)))
    cell = np.sqrt(2 * 4 * np.pi * 20.0**2 / len(few_faces))
    np.testing.assert_allclose(np.linalg.norm(few_vertices, axis=1), 20.0, atol=0.1 * cell)
    volume = trimesh.Trimesh(few_vertices, few_faces, process=False).volume
    assert volume == pytest.approx(4 / 3 * np.pi * 20.0**3, rel=0.02)


def test_a_small_mesh_is_left_as_it_is():
    vertices, faces = ball()
    kept_vertices, kept_faces = report.decimate(vertices, faces, len(faces))
    np.testing.assert_array_equal(kept_vertices, vertices)
    np.testing.assert_array_equal(kept_faces, faces)


def test_a_whole_spine_stays_under_12_megabytes(tmp_path):
    vertices, faces = ball(subdivisions=5)  # 20480 faces
    truth = report.decimate(vertices, faces, 8000)
    fitted = report.decimate(vertices, faces, 4096)
    meshes = [
        report.ViewerMesh(f"T{i}", layer, *surface)
        for i in range(13)
        for layer, surface in (("reconstruction", fitted), ("ground truth", truth))
    ]
    noise = np.random.default_rng(0).random((700, 900)).astype(np.float32)
    figures = [report.Figure(report.radiograph_figure(noise), "view")] * 2
    made = make_report(cases=[report.ReportCase("spine", figures, meshes)])
    assert report.write_html(made, tmp_path / "report.html").stat().st_size < 12e6


@pytest.mark.skipif(not shutil.which("node"), reason="needs node to read JavaScript")
def test_the_scripts_are_valid_javascript(page, tmp_path):
    scripts = re.findall(r"<script>\n?(.*?)</script>", page, flags=re.S)
    assert len(scripts) == 2
    for script in scripts:
        file = tmp_path / "script.js"
        file.write_text(script)
        subprocess.run(["node", "--check", str(file)], check=True, timeout=60)
