"""Baseline estimators of a pose from points: from distances between points, and by evolution."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Matrix3, Pixels, Points
from dartjax.robot.carm._carm import project_points, to_slopes
from dartjax.transforms import SE3, SO3, align_points

DEPTH_POINTS = 8  # the size of the linear system grows with the cube
_POPULATION = 24


def pnp_depths(pixels: Pixels, points: Points, chosen: Float[Array, "8"], K: Matrix3) -> SE3:
    """Estimate a pose from distances between points, without an initial estimate.

    Linear method of Ansar and Daniilidis (2003) on the points with the indices `chosen`. With unit
    rays p_i and depths l_i, every distance gives d_ij^2 = t_ii + t_jj - 2 t_ij p_i.p_j in the
    products t_ij = l_i l_j. The solution lies in the kernel of that system; the constraints
    t_ii t_jk = t_ij t_ik, linear in the products of the kernel's coordinates, select it. The points
    at their depths are then aligned rigidly. Differentiable where the solution is unique.
    """
    chosen = chosen.astype(int)
    slopes = to_slopes(K, pixels[chosen])
    rays = jnp.concatenate([slopes, jnp.ones((DEPTH_POINTS, 1))], axis=1)
    rays = rays / jnp.linalg.norm(rays, axis=1, keepdims=True)
    X = points[chosen]
    depths = _depths(rays, X)
    in_camera = rays * depths[:, None]
    return align_points(X, in_camera)


def _pairs() -> tuple[np.ndarray, np.ndarray]:
    """Index pairs i <= j, and a table with the number of each pair."""
    n = DEPTH_POINTS
    pairs = np.array([(i, j) for i in range(n) for j in range(i, n)])
    number = np.zeros((n, n), int)
    number[pairs[:, 0], pairs[:, 1]] = number[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))
    return pairs, number


def _depths(rays: Points, X: Points) -> Float[Array, "8"]:
    n = DEPTH_POINTS
    pairs, number = _pairs()
    apart = pairs[pairs[:, 0] < pairs[:, 1]]
    square = jnp.sum((X[apart[:, 0]] - X[apart[:, 1]]) ** 2, axis=1)
    scale = jnp.mean(square)
    rows = jnp.zeros((len(apart), len(pairs) + 1))
    index = jnp.arange(len(apart))
    cosine = jnp.sum(rays[apart[:, 0]] * rays[apart[:, 1]], axis=1)
    rows = rows.at[index, number[apart[:, 0], apart[:, 0]]].add(1.0)
    rows = rows.at[index, number[apart[:, 1], apart[:, 1]]].add(1.0)
    rows = rows.at[index, number[apart[:, 0], apart[:, 1]]].add(-2.0 * cosine)
    rows = rows.at[:, -1].set(-square / scale)
    kernel = _kernel(rows)  # (pairs + 1, n + 1)
    # Consistency: t_ii t_jk - t_ij t_ik = 0, quadratic in the kernel's coordinates.
    i, j, k = np.array(
        [(i, j, k) for i in range(n) for j in range(n) for k in range(j, n) if i not in (j, k)]
    ).T
    a, b = np.triu_indices(n + 1)
    double = jnp.asarray(np.where(a == b, 1.0, 2.0))

    def products(p: np.ndarray, q: np.ndarray) -> Float[Array, "row product"]:
        left, right = kernel[p], kernel[q]
        both = left[:, a] * right[:, b] + left[:, b] * right[:, a]
        return 0.5 * both * double[None]

    equations = products(number[i, i], number[j, k]) - products(number[i, j], number[i, k])
    _, _, vt = jnp.linalg.svd(equations, full_matrices=False)
    table = jnp.zeros((n + 1, n + 1)).at[a, b].set(vt[-1]).at[b, a].set(vt[-1])
    values, vectors = jnp.linalg.eigh(table)
    coordinates = vectors[:, jnp.argmax(jnp.abs(values))]
    solution = kernel @ coordinates
    solution = solution / solution[-1] * scale  # the last unknown is 1
    squared_depths = solution[number[np.arange(n), np.arange(n)]]
    return jnp.sqrt(jnp.maximum(squared_depths, 1.0))


def _kernel(rows: Float[Array, "row column"]) -> Float[Array, "column free"]:
    """Basis N of the kernel of a wide matrix A of full rank. The choice of basis is arbitrary, so
    the derivative is that of the space: dN = -A+ dA N. (JAX has none for a full decomposition.)"""
    fixed = jax.lax.stop_gradient(rows)
    u, s, vt = jnp.linalg.svd(fixed, full_matrices=True)
    free, pseudo_inverse = vt[len(s) :].T, (vt[: len(s)].T / s[None]) @ u.T
    return free - pseudo_inverse @ ((rows - fixed) @ free)


def pnp_evolution(
    pixels: Pixels,
    points: Points,
    weight: Float[Array, " n"],
    K: Matrix3,
    start: SE3,
    spread: Float[Array, "6"],
    *,
    key: PRNGKeyArray,
    num_generations: int = 120,
) -> SE3:
    """Estimate a pose by evolution: CMA-ES with full covariance (Hansen 2016).

    Minimises the reprojection error without derivatives. Populations of 24 start around `start`,
    with standard deviations `spread` (translation in mm, rotation in rad), which should cover the
    error of the initial estimate.
    """
    n, lam = 6, _POPULATION
    mu = lam // 2
    raw = np.log(mu + 0.5) - np.log(np.arange(1, mu + 1))
    share = jnp.asarray(raw / raw.sum())
    mu_eff = float(1.0 / np.sum((raw / raw.sum()) ** 2))
    c_sigma = (mu_eff + 2.0) / (n + mu_eff + 5.0)
    d_sigma = 1.0 + 2.0 * max(0.0, np.sqrt((mu_eff - 1.0) / (n + 1.0)) - 1.0) + c_sigma
    c_c = (4.0 + mu_eff / n) / (n + 4.0 + 2.0 * mu_eff / n)
    c_1 = 2.0 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1.0 - c_1, 2.0 * (mu_eff - 2.0 + 1.0 / mu_eff) / ((n + 2.0) ** 2 + mu_eff))
    expected = np.sqrt(n) * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n**2))

    def pose(x: Float[Array, "6"]) -> SE3:
        step = x * spread
        turn = SO3.exp(step[3:]) @ start.rotation()
        return SE3.from_rotation_and_translation(turn, start.translation() + step[:3])

    def cost(x: Float[Array, "6"]) -> Array:
        error = project_points(K, pose(x), points) - pixels
        square = jnp.where(weight > 0.0, jnp.sum(error**2, axis=1), 0.0)
        return jnp.sum(weight * square)

    def generation(carry, key):
        mean, sigma, C, path_c, path_s = carry
        values, vectors = jnp.linalg.eigh(C)
        root = jnp.sqrt(jnp.maximum(values, 1e-20))
        z = jax.random.normal(key, (lam, n))
        y = (z * root[None]) @ vectors.T
        order = jnp.argsort(jax.vmap(cost)(mean[None] + sigma * y))[:mu]
        step = share @ y[order]
        whitened = vectors @ ((vectors.T @ step) / root)
        path_s = (1 - c_sigma) * path_s + np.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * whitened
        length = jnp.linalg.norm(path_s)
        calm = length < (1.4 + 2.0 / (n + 1.0)) * expected
        path_c = (1 - c_c) * path_c + calm * np.sqrt(c_c * (2 - c_c) * mu_eff) * step
        rank_mu = (y[order] * share[:, None]).T @ y[order]
        C = (1 - c_1 - c_mu) * C + c_1 * jnp.outer(path_c, path_c) + c_mu * rank_mu
        old_sigma, sigma = sigma, sigma * jnp.exp((c_sigma / d_sigma) * (length / expected - 1.0))
        return (mean + old_sigma * step, sigma, 0.5 * (C + C.T), path_c, path_s), None

    first = (jnp.zeros(n), jnp.asarray(1.0), jnp.eye(n), jnp.zeros(n), jnp.zeros(n))
    last, _ = jax.lax.scan(generation, first, jax.random.split(key, num_generations))
    return pose(last[0])
