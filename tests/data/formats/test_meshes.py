import numpy as np
import pytest
import trimesh

from dartjax import data
from tests import shapes


def export(path, vertices, faces):
    trimesh.Trimesh(vertices, faces, process=False).export(path)
    return path


def test_ply_round_trip(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    first = data.load_mesh(export(tmp_path / "a.ply", vertices, faces))
    data.save_ply(tmp_path / "b.ply", first)
    second = data.load_mesh(tmp_path / "b.ply")
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.faces, second.faces)


@pytest.mark.parametrize("suffix", ["ply", "stl", "obj"])
def test_formats_give_one_closed_surface(tmp_path, suffix):
    """STL repeats vertices per face: they are merged again."""
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    loaded = data.load_mesh(export(tmp_path / f"L1.{suffix}", vertices, faces))
    assert loaded.vertices.shape == vertices.shape
    surface = trimesh.Trimesh(loaded.vertices, loaded.faces, process=False)
    assert surface.is_watertight
    assert surface.volume == pytest.approx(trimesh.Trimesh(vertices, faces).volume, rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "message"), [(1e-3, "looks like metres"), (1e3, "scale it to millimetres")]
)
def test_units(tmp_path, scale, message):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    path = export(tmp_path / "L1.ply", scale * vertices, faces)
    with pytest.raises(data.DataError, match=message):
        data.load_mesh(path)


def test_files_that_are_no_mesh(tmp_path):
    with pytest.raises(data.DataError, match="no such file"):
        data.load_mesh(tmp_path / "L1.ply")
    (tmp_path / "L1.ply").write_text("ply\nnonsense")
    with pytest.raises(data.DataError, match="not a readable mesh"):
        data.load_mesh(tmp_path / "L1.ply")
    (tmp_path / "L1.vtk").write_text("x")
    with pytest.raises(data.DataError, match=r"ends in \.ply"):
        data.load_mesh(tmp_path / "L1.vtk")
    trimesh.PointCloud(np.random.default_rng(0).normal(size=(9, 3))).export(tmp_path / "L2.ply")
    with pytest.raises(data.DataError, match=r"no faces|not a readable mesh"):
        data.load_mesh(tmp_path / "L2.ply")


def test_folder_of_meshes_by_level(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    for name in ("L1.ply", "T12.stl", "notes.txt", "pelvis.ply"):
        path = tmp_path / name
        if path.suffix == ".txt":
            path.write_text("x")
        else:
            export(path, vertices, faces)
    assert list(data.load_meshes(tmp_path)) == ["T12", "L1"]
    with pytest.raises(data.DataError, match="no mesh named by its level"):
        data.load_meshes(tmp_path / "absent")


def test_two_files_of_one_level(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    export(tmp_path / "L1.ply", vertices, faces)
    (tmp_path / "._L1.stl").write_bytes(b"\0\5\26\7")  # of macOS
    assert list(data.load_meshes(tmp_path)) == ["L1"]
    export(tmp_path / "l1.stl", vertices, faces)
    with pytest.raises(data.DataError, match=r"a second mesh of L1, beside L1\.ply"):
        data.load_meshes(tmp_path)


def obj_with_normals(path, vertices, faces):
    """As Blender writes it: a normal per face, so that every face has its own vertices."""
    normals = trimesh.Trimesh(vertices, faces, process=False).face_normals
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [f"vn {x:.6f} {y:.6f} {z:.6f}" for x, y, z in normals]
    for number, face in enumerate(faces, 1):
        lines.append("f " + " ".join(f"{corner + 1}//{number}" for corner in face))
    path.write_text("\n".join(lines))
    return path


def test_vertices_split_by_normals_are_merged(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    loaded = data.load_mesh(obj_with_normals(tmp_path / "L1.obj", vertices, faces))
    assert loaded.vertices.shape == vertices.shape
    assert trimesh.Trimesh(loaded.vertices, loaded.faces, process=False).is_watertight


def test_vertices_split_by_rounding_are_merged(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    soup = vertices[faces].reshape(-1, 3)
    soup = soup + np.random.default_rng(0).uniform(-1e-6, 1e-6, soup.shape)
    path = export(tmp_path / "L1.ply", soup, np.arange(len(soup)).reshape(-1, 3))
    assert data.load_mesh(path).vertices.shape == vertices.shape


def test_open_and_inverted_surfaces(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    with pytest.raises(data.DataError, match="not watertight, 3 edges are open"):
        data.load_mesh(export(tmp_path / "L1.ply", vertices, faces[1:]))
    with pytest.raises(data.DataError, match="faces point inward"):
        data.load_mesh(export(tmp_path / "L2.stl", vertices, faces[:, ::-1]))


def test_faces_that_are_turned_differently(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    faces = np.asarray(faces).copy()
    faces[5] = faces[5, ::-1]
    with pytest.raises(data.DataError, match="beside 3 edges are turned in different directions"):
        data.load_mesh(export(tmp_path / "L1.ply", vertices, faces))


def test_a_face_of_a_vertex_that_is_not_there(tmp_path):
    vertices, faces = shapes.torus(20.0, 6.0, (24, 12))
    path = export(tmp_path / "L1.ply", vertices, faces)
    content = path.read_bytes()
    path.write_bytes(content[:-4] + np.array([-1], "<i4").tobytes())
    with pytest.raises(data.DataError, match="a vertex that is not there"):
        data.load_mesh(path)
