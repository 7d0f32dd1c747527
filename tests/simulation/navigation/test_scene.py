"""Registration of the target in simulated images of two-plane navigation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import robot as robots
from dartjax import transforms
from dartjax.robot import carm, navigation
from dartjax.simulation.navigation import _scene as scenes


@pytest.mark.slow
def test_a_target_is_registered_from_its_shadows_and_the_wrong_part_is_not():
    """Without anatomy: render, detect, recognise, locate."""
    view = transforms.view_rotation("AP")
    K = carm.intrinsics(scenes.FOCAL_LENGTH, jnp.array(scenes.CENTER))
    flat = carm.CarmView(K, carm.flat_panel(), view, scenes.IMAGE_SIZE)
    rays = carm.image_rays(flat)
    T_world_target = scenes.held_target(np.zeros(3), np.random.default_rng(0))
    camera = transforms.SE3.from_rotation_and_translation(
        view, view.apply(jnp.array([0.0, 0.0, -scenes.SOURCE_TO_ISOCENTER]))
    ).inverse()
    for part, status in ((0, robots.StatusCode.OK), (1, robots.StatusCode.CORRESPONDENCE_FAILED)):
        # The other part in this view: a target mounted with its parts swapped.
        swap = transforms.SE3.from_rotation(
            transforms.SO3.from_matrix(scenes.scene_target().R_biplanar_part[part].T)
        )
        balls = scenes.scene_target().points(part).reshape(-1, 3)
        metal = carm.balls_attenuation(
            rays, flat, balls, scenes.scene_target().radius, camera @ T_world_target @ swap
        )
        image = scenes._record(jnp.zeros(scenes.IMAGE_SIZE), metal, jax.random.key(0))
        found = scenes._detect(image, scenes.TARGET_BALLS)
        match, code = navigation.match_part(
            found.centers,
            found.valid,
            scenes.scene_target(),
            0,
            focal_length=scenes.FOCAL_LENGTH,
            source_to_isocenter=scenes.SOURCE_TO_ISOCENTER,
            center=jnp.array(scenes.CENTER),
        )
        assert code == status
        if part == 0:
            assert int(match.seen.sum()) > 105 and float(match.rms_px) < 0.1


@pytest.mark.parametrize("grey", [255.0, 0.0])
def test_a_saturated_image_is_rejected_before_detection(grey):
    view = scenes.NavigationView(*[None] * 5)  # pyright: ignore
    with pytest.raises(robots.DetectionFailed, match="repeat the exposure"):
        scenes.register_target(jnp.full(scenes.IMAGE_SIZE, grey), view, 0)
