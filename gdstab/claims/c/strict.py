"""Paper C, sections 4.2 and 6.1: the saddles of S are strict, and the cut-off of Lemma 6.1."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gdstab.claims.c import exact_relu as exact
from gdstab.claims.c.landscape import (
    PROBLEMS,
    SLANTED,
    exact_zigzag,
    is_in_S,
    patterns,
)
from gdstab.claims.registry import Finding, Verdict, claim, judge
from gdstab.theory import relu


@claim(
    "C.lem4.6",
    source="Lemma 4.6",
    expected=Verdict.HOLDS,
    statement="At the saddles of S, those not only of inactive and semi-inactive neurons with f' v w <= 0, G^J = 0 and "
    "its Jacobian has a strictly negative eigenvalue.",
)
def strict_saddles(key):
    """Least eigenvalues on all families of S, the printed minors and a negative value of the form in fractions."""
    rows, others = [], []
    for i, pattern in enumerate(patterns()):
        for which, problem in enumerate(PROBLEMS):
            for k in jax.random.split(jax.random.fold_in(key, 3 * i + which), 2):
                theta = relu.critical_point(pattern, **problem, key=k)
                H = relu.modified_hessian(theta, **problem)
                value = relu.escape_direction(theta, **problem)[0] / np.linalg.norm(H)
                (rows if is_in_S(pattern) else others).append(value)
    exactly = [exact_strictness(key, kinks) for kinks in (0, 2, 4)]
    numbers = {
        "saddles of S": len(rows),
        "least eigenvalue over the norm, the largest": max(rows),
        "critical points outside S, the least of theirs": [len(others), min(others)],
        "in fractions, n = 0, 2, 4: G^J is zero, the form is negative": [row[:2] for row in exactly],
        "both printed minors, which need N_theta affine": exactly[0][2],
    }
    holds = max(rows) < -1e-6 and all(all(row[:2]) for row in exactly) and exactly[0][2]
    note = (
        "S leaves out the saddles of inactive and flat semi-inactive neurons, and has to: none has a negative "
        "eigenvalue; the loss falls at third order."
    )
    return Finding(judge(holds and min(others) > -1e-10), numbers, note)


def exact_strictness(key, kinks: int) -> tuple[bool, bool, bool]:
    """Whether G^J vanishes, its Jacobian is negative along a rational vector, and the two printed minors are right."""
    theta, sets = exact_zigzag(key, kinks)
    w, _, v, _ = exact.split(theta)
    N, length, slope = len(w), SLANTED.high - SLANTED.low, SLANTED.target[1]
    H = exact.jacobian(theta, SLANTED, *sets)
    inner = [k * N + j for k in range(3) for j in range(N) if j not in (*sets[0], *sets[1])]  # the others are split off
    block = [[H[i][k] for k in inner] for i in inner]
    vector = exact.fractions(np.linalg.eigh([exact.floats(row) for row in block])[1][:, 0], 10**6)
    flat = exact.determinant([[H[i][k] for k in (N - 1, 3 * N - 1)] for i in (N - 1, 3 * N - 1)])
    minors = [flat == -(slope**2) * length**6 / 36]
    minors += [H[N + j][N + j] == -slope * v[j] / w[j] * length for j in (*sets[0], *sets[1])]
    return not any(exact.gradient(theta, SLANTED, *sets)), exact.form(block, vector) < 0, all(minors)


#
# Lemma 6.1
#


def cut_off(z):
    r"""$\sigma(z)$, from 1 on $(-\infty, 1]$ to 0 on $[4, \infty)$."""
    inner = jnp.clip(z, 1 + 1e-6, 4 - 1e-6)  # beyond, the function is 1 or 0 to the last digit
    return jnp.where(z <= 1, 1.0, jnp.where(z >= 4, 0.0, jax.nn.sigmoid(3 / (inner - 4) - 3 / (1 - inner))))


def localised(x, radius):
    r"""$\rho_r(x) = x \sigma(4 |x|^2 / r^2)$."""
    return x * cut_off(4 * jnp.sum(x * x) / radius**2)


@claim(
    "C.lem6.1",
    source="Lemma 6.1",
    expected=Verdict.HOLDS,
    statement="For every r there is a smooth map into the ball of radius r with support there, the identity on half "
    "the ball, whose Jacobian has a Frobenius norm of at most 6 sqrt(d).",
)
def smooth_cut_off(key):
    """The printed map: its Jacobian by autodiff and by the printed formula, its image, and its smoothness."""
    rows = [cut_off_row(key, dim, radius) for dim in (1, 2, 40) for radius in (1e-3, 1.0, 1e3)]
    slopes = np.asarray(jax.vmap(jax.grad(cut_off))(jnp.linspace(0, 5, 5001)))
    flat, middle = printed_slopes()
    numbers = {
        "d, r: largest Frobenius norm, over 6 sqrt(d)": [row[:4] for row in rows],
        "printed formula against autodiff, relative": max(row[4] for row in rows),
        "identity on the half ball, zero outside, image in the ball": [
            all(row[5][k] for row in rows) for k in range(3)
        ],
        "range of sigma', and its value at 5/2": [slopes.min(), slopes.max(), middle],
        "derivatives of sigma up to order 6, 0.01 from 1 and 4": flat,
    }
    within = all(row[3] < 1 and all(row[5]) and row[4] < 1e-12 for row in rows)
    bounded = slopes.min() >= -2 / 3 - 1e-12 and slopes.max() <= 0 and abs(middle + 2 / 3) < 1e-15 and flat < 1e-80
    note = (
        "The bound is generous: the norm is at most max(3.35, sqrt d), and since the Jacobian is sigma I plus a matrix "
        "of rank one, the map is Lipschitz with the constant 3.28 of d = 1 in every dimension."
    )
    return Finding(judge(within and bounded), numbers, note)


def printed_slopes() -> tuple[float, float]:
    """Largest Taylor coefficient of sigma, orders 1 to 6, 0.01 inside the ends of (1, 4); and its slope at 5/2.

    1 / (1 + e^g) is the logistic function of -g, whose derivatives neither cancel nor overflow: they vanish like
    e^(-3 / distance), which double precision still holds here.
    """

    def coefficients(z):
        found, fn = [], lambda z: jax.nn.sigmoid(3 / (z - 4) - 3 / (1 - z))
        for order in range(1, 7):
            fn = lambda z, fn=fn: jax.jvp(fn, (z,), (jnp.ones_like(z),))[1]  # noqa: E731
            found.append(fn(z) / math.factorial(order))
        return jnp.stack(found)

    found = np.asarray(jax.jit(jax.vmap(coefficients))(jnp.array([1.01, 3.99, 2.5])))
    return float(np.abs(found[:2]).max()), float(found[2, 0])


@jax.jit
def cut_off_measures(points, radius):
    """Images, Frobenius norms of the Jacobian, and these by the printed formula."""
    images = jax.vmap(localised, (0, None))(points, radius)
    norms = jnp.linalg.norm(jax.vmap(jax.jacfwd(localised), (0, None))(points, radius), axis=(1, 2))
    u = jnp.sum(points**2, axis=1) / radius**2
    sigma, tilt = jax.vmap(jax.value_and_grad(cut_off))(4 * u)
    square = points.shape[1] * sigma**2 + 16 * u * sigma * tilt + 64 * u**2 * tilt**2
    return images, norms, jnp.sqrt(square)


def cut_off_row(key, dim: int, radius: float) -> tuple:
    """Dimension, radius, the largest norm, over its bound, error of the formula, and the three other properties."""
    lengths = radius * np.linspace(0, 1.2, 241)
    points = np.asarray(jax.random.normal(key, (241, dim)))
    points = points / np.linalg.norm(points, axis=1, keepdims=True) * lengths[:, None]
    images, norms, printed = map(np.asarray, cut_off_measures(points, radius))
    half, outside = lengths < radius / 2, lengths > radius
    properties = (
        np.all(images[half] == points[half]),
        np.all(images[outside] == 0),
        np.all(np.linalg.norm(images, axis=1) <= radius),
    )
    top = norms.max()
    return dim, radius, top, top / (6 * dim**0.5), np.abs(norms - printed).max() / top, properties
