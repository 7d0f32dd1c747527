import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, transforms
from dartjax.image import Volume


def view(primary_deg, secondary_deg=0.0, *, source_to_isocenter=530.0):
    rotation = transforms.carm_rotation(np.radians(primary_deg), np.radians(secondary_deg))
    return camera.from_carm(
        rotation, jnp.zeros(3), source_to_isocenter=source_to_isocenter, image_size=(400, 400)
    )


def body(affine=None):
    """A box of 200 mm about the origin."""
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    matrix[:3, 3] = -95.0
    return Volume(jnp.ones((20, 20, 20)), jnp.asarray(matrix if affine is None else affine))


def test_sound_views_give_no_warning():
    assert data.check_views([view(0), view(90), view(45, 20)], body()) == []
    assert data.check_views([view(0), view(90)], np.zeros(3)) == []
    assert data.angle_between(view(0), view(65)) == pytest.approx(65.0, abs=1e-3)


@pytest.mark.parametrize(("second", "count"), [(15, 1), (165, 1), (180, 1), (25, 0), (155, 0)])
def test_near_parallel_beams_are_flagged(second, count):
    warnings = data.check_views([view(0), view(second)], body())
    assert len(warnings) == count
    assert all(f"{second} deg apart, nearly parallel" in text for text in warnings)


def test_only_the_parallel_pair_is_named():
    (warning,) = data.check_views([view(0), view(90), view(80)])
    assert "views 2 and 3" in warning


def test_one_view_is_allowed_with_a_warning():
    (warning,) = data.check_views([view(0)], body())
    assert "only one view" in warning


def test_no_view():
    with pytest.raises(data.DataError, match="no view"):
        data.check_views([], body())


def test_source_inside_the_body():
    with pytest.raises(data.DataError, match=r"view 2: the X-ray source.*inside the body"):
        data.check_views([view(0), view(90, source_to_isocenter=80.0)], body())


def test_source_next_to_an_oblique_body_is_outside():
    """The box is tested in the volume's own axes: turned by 45 deg it reaches 127 mm along
    world y at x = 0, where an upright box ends at 100 mm."""
    turned = np.eye(4)
    turned[:3, :3] = np.asarray(transforms.SO3.from_z_radians(np.pi / 4).as_matrix()) * 10.0
    turned[:3, 3] = turned[:3, :3] @ np.full(3, -9.5)
    near = view(0, source_to_isocenter=120.0)
    assert len(data.check_views([near], body())) == 1
    with pytest.raises(data.DataError, match="inside the body"):
        data.check_views([near], body(turned))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ([0.0, -600.0, 0.0], "behind the source"),
        ([0.0, 600.0, 0.0], "beyond the detector"),
        ([90.0, 0.0, 0.0], "outside the 400 x 400 image"),
    ],
)
def test_point_that_a_view_cannot_see(point, message):
    with pytest.raises(data.DataError, match=f"view 1.*{message}"):
        data.check_views([view(0), view(90)], np.array(point))


@pytest.mark.parametrize(("center", "is_doubtful"), [(149.0, True), (192.0, False)])
def test_intrinsics_in_millimetres_are_warned_of(center, is_doubtful):
    K = jnp.array([[1020.0, 0, center], [0, 1020.0, center], [0, 0, 1]])
    mm = camera.from_intrinsics(K, view(0).camera_from_world, 1020.0, (384, 384))
    found = data.check_views([mm], None)
    assert any("K may be in mm" in text for text in found) == is_doubtful
