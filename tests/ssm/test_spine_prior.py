"""The prior of the spine: frames, density, conditioning, estimation from incomplete scans."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dartjax import data, ssm
from dartjax.ssm import build
from dartjax.transforms import SE3
from tests.properties.masked import assert_ignored

STEPS = 6 * (len(ssm.SPINE_LEVELS) - 1)
PLACE = ssm.SPINE_LEVELS.index


@pytest.fixture(scope="module")
def prior():
    return data.load_spine_prior()


@pytest.fixture(scope="module")
def spine(prior):
    """Values and frames of one random spine, as it lies in the world."""
    values = ssm.spine_sample(prior, key=jax.random.key(3))
    frames = jax.jit(ssm.spine_frames)(values)
    world = SE3.from_translation(jnp.array([20.0, -40.0, 700.0]))
    return values, jax.vmap(lambda T: world @ T)(frames)


def dense(prior):
    loadings, noise = np.asarray(prior.loadings, float), np.asarray(prior.noise, float)
    return np.asarray(prior.mean, float), loadings @ loadings.T + np.diag(noise**2)


def points_of(values):
    """Centres of body, left and right pedicle of every level, (level, 3, 3)."""
    frames = jax.jit(ssm.spine_frames)(values)
    apart, behind = np.asarray(ssm.spine_sizes(values)).T
    origin, axes = np.asarray(frames.translation()), np.asarray(frames.rotation().as_matrix())
    middle = origin - behind[:, None] * axes[:, :, 1]
    half = 0.5 * apart[:, None] * axes[:, :, 0]
    return np.stack([origin, middle - half, middle + half], axis=1)


def test_axes_of_the_frame():
    """Pedicles behind the body, the left one at -x: right, anterior and superior are the axes."""
    points = jnp.array([[0.0, 0.0, 0.0], [-15.0, -22.0, 0.0], [15.0, -22.0, 0.0]])
    frame = ssm.pedicle_frame(points + 5.0)
    np.testing.assert_allclose(frame.rotation().as_matrix(), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(frame.translation(), [5.0, 5.0, 5.0])


@pytest.mark.parametrize("level", ["T4", "L3"])
def test_frame_of_a_shape_model(level):
    """x is that of the vertebra; the pedicles lie above the body's centre, so y points down."""
    axes = np.asarray(ssm.frame_in_vertebra(data.load_shape_model(level)).rotation().as_matrix())
    assert axes[0, 0] > 0.999
    assert axes[1, 1] > 0.7 and axes[2, 1] < 0.0


def test_the_mean_spine_goes_down_bends_and_is_symmetric(prior):
    frames = jax.jit(ssm.spine_frames)(prior.mean)
    centers = np.asarray(frames.translation())
    apart = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert 18.0 < apart[0] < 23.0 and 34.0 < apart[PLACE("L3")] < 39.0  # of vid_summary.csv
    np.testing.assert_allclose(centers[:, 0], 0.0, atol=1.0)
    up = centers[0] - centers[PLACE("L5")]
    back = np.cross([1.0, 0.0, 0.0], up / np.linalg.norm(up))  # anterior is -back
    bulge = (centers - centers[PLACE("L5")]) @ back
    assert bulge[PLACE("T7")] * bulge[PLACE("L3")] < 0.0  # kyphosis and lordosis
    assert 350.0 < np.linalg.norm(up) < 480.0


def test_points_give_back_the_values(spine):
    values, _ = spine
    scan = build.SpineScan(
        "a",
        "supine",
        {
            level: dict(zip(ssm.KEYPOINTS, points, strict=True))
            for level, points in zip(ssm.SPINE_LEVELS, points_of(values), strict=True)
        },
    )
    np.testing.assert_allclose(build.spine_values_of(scan), values, atol=2e-4)


def test_density_is_that_of_scipy(prior, spine):
    values, _ = spine
    mean, covariance = dense(prior)
    seen = np.random.default_rng(0).random(len(mean)) < 0.3
    hidden = jnp.where(seen, values, jnp.nan)
    found = jax.jit(ssm.spine_log_likelihood)(prior, hidden, jnp.asarray(seen))
    expected = stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
    assert float(found) == pytest.approx(expected.logpdf(np.asarray(values)[seen]), rel=1e-3)


def test_samples_have_the_covariance(prior):
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: ssm.spine_sample(prior, key=key))(keys))
    mean, covariance = dense(prior)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(0) - mean) / sd, 0.0, atol=0.08)
    np.testing.assert_allclose(drawn.std(0) / sd, 1.0, atol=0.06)


def test_conditioning_on_neighbours_is_that_of_a_gaussian(prior, spine):
    """Of adjacent levels the steps are observed directly: the dense formula is exact."""
    values, frames = spine
    known = np.zeros(len(ssm.SPINE_LEVELS), bool)
    known[PLACE("T9") : PLACE("L2")] = True
    found = jax.jit(ssm.condition_spine)(prior, frames, jnp.asarray(known))
    mean, covariance = dense(prior)
    rows = np.arange(6 * PLACE("T9"), 6 * (PLACE("L1")))
    noise = np.tile(np.array([1.0, 1, 1, 0.03, 0.03, 0.03]) ** 2, len(rows) // 6)
    gain = np.linalg.solve(covariance[np.ix_(rows, rows)] + np.diag(noise), covariance[rows]).T
    expected = mean + gain @ (np.asarray(values, float)[rows] - mean[rows])
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((found.mean - expected) / sd, 0.0, atol=0.02)
    left = covariance - gain @ covariance[rows]
    np.testing.assert_allclose(
        np.sqrt(np.diag(found.covariance)) / sd, np.sqrt(np.diag(left)) / sd, atol=0.02
    )


@pytest.mark.slow
def test_a_level_between_two_is_found_and_its_spread_is_right(prior):
    """Over random spines, the errors are as large as the estimate says."""
    known = jnp.ones(len(ssm.SPINE_LEVELS), bool).at[PLACE("T10")].set(False)

    @jax.jit
    @jax.vmap
    def gaps(key):
        frames = ssm.spine_frames(ssm.spine_sample(prior, key=key))
        estimate = ssm.condition_spine(prior, frames, known)
        expected = ssm.expected_frames(estimate, frames, known)
        pick = lambda leaf: leaf[PLACE("T10")]  # noqa: E731
        there, truth = jax.tree.map(pick, expected.T_world_frame), jax.tree.map(pick, frames)
        above = jax.tree.map(lambda leaf: leaf[PLACE("T9")], frames)
        gap = above.rotation().inverse().apply(truth.translation() - there.translation())
        return gap / pick(expected.sigma)[:3], jnp.linalg.norm(gap)

    scaled, distance = gaps(jax.random.split(jax.random.key(1), 200))
    assert float(jnp.median(distance)) < 2.5
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(scaled), axis=0)), 0.95, atol=0.2)


def test_levels_that_are_not_known_may_be_nan(prior, spine):
    _, frames = spine
    known = jnp.ones(len(ssm.SPINE_LEVELS), bool).at[jnp.array([0, 4, 11])].set(False)
    sizes = jnp.full((len(ssm.SPINE_LEVELS), 2), 25.0)

    def found(frames, sizes):
        estimate = ssm.condition_spine(prior, frames, known, sizes)
        expected = ssm.expected_frames(estimate, frames, known)
        return expected.T_world_frame.translation(), expected.sigma

    assert_ignored(
        found,
        {"frames": frames, "sizes": sizes},
        {"frames": ~known, "sizes": ~known},
        gradient=False,
        rtol=1e-3,
        atol=1e-2,
    )


def test_nothing_known(prior, spine):
    _, frames = spine
    none = jnp.zeros(len(ssm.SPINE_LEVELS), bool)
    estimate = jax.jit(ssm.condition_spine)(prior, frames, none)
    np.testing.assert_allclose(estimate.mean, prior.mean)
    assert not bool(ssm.expected_frames(estimate, frames, none).known.any())


def scans_from(prior, count, rng):
    """Random spines of which a part is seen, some with one point far off."""
    keys = jax.random.split(jax.random.key(5), count)
    drawn = jax.jit(jax.vmap(lambda key: ssm.spine_sample(prior, key=key)))(keys)
    scans = []
    for number, values in enumerate(drawn):
        points = points_of(values)
        if number % 20 == 0:
            points[rng.integers(18), 1] += 60.0
        first = rng.integers(0, 8)
        levels = ssm.SPINE_LEVELS[first : first + rng.integers(9, 19)]
        scans.append(
            build.SpineScan(
                str(number),
                "supine",
                {
                    level: dict(zip(ssm.KEYPOINTS, points[PLACE(level)], strict=True))
                    for level in levels
                },
            )
        )
    return scans


@pytest.mark.slow
def test_estimation_recovers_a_prior_from_parts_of_spines(prior):
    """Half of the values missing, one scan in twenty with a misplaced point."""
    found = build.estimate_spine(scans_from(prior, 500, np.random.default_rng(0)), 12)
    mean, covariance = dense(prior)
    sd = np.sqrt(np.diag(covariance))
    own = found.loadings @ found.loadings.T + np.diag(found.noise**2)
    errors = 1.0 / np.sqrt(found.num_people)  # standard errors of the means, in spreads
    assert (np.abs(found.mean - mean) / sd < 4.0 * errors).all()
    assert (np.abs(np.sqrt(np.diag(own)) / sd - 1.0) < 4.0 * errors / np.sqrt(2.0)).all()
    correlation, expected = own / np.outer(sd, sd), covariance / np.outer(sd, sd)
    assert np.corrcoef(correlation.ravel(), expected.ravel())[0, 1] > 0.9
    signs = build.spine_mirror_signs()
    np.testing.assert_allclose(own, signs[:, None] * own * signs[None], atol=0.05 * sd.max() ** 2)


def test_a_spine_without_scans_of_a_level_is_an_error(prior):
    scans = scans_from(prior, 3, np.random.default_rng(0))
    scans = [scan._replace(levels={"T9": scan.levels["T9"]}) for scan in scans]
    with pytest.raises(ValueError, match="no level of the spine"):
        build.estimate_spine(scans, 2)
