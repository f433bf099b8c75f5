"""Paper B, section 3 and 4.1: the expansion of the loss, critical points, their Hessians and strata."""

from functools import lru_cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdstab import curvature, ensembles
from gdstab.claims import problems
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.losses import LinearNetwork
from gdstab.theory import linear, strata
from gdstab.theory.factorisations import balanced_factorisation

SHAPES = ((2, 2, 2), (3, 2, 2), (3, 3, 2), (4, 2, 2), (2, 3, 2), (4, 3, 2), (3, 3, 3), (4, 4, 3))
"""(d_x, d_1, d_y) with d_x >= d_y and d_1 >= d_y."""


def reduced_target(widths):
    """Sigma_Y = [diag(3, 1.7, 0.8, ...) 0]: distinct singular values, and distinct sums over subsets."""
    sigma = jnp.array([3.0, 1.7, 0.8])[: widths[-1]]
    return linear.pad(jnp.diag(sigma), (widths[-1], widths[0])), np.asarray(sigma)


def product(matrices):
    """Multiply W_1, ..., W_h to W_h ... W_1."""
    return reduce(lambda below, above: above @ below, matrices)


#
# Proposition 3
#


class _Expansion:
    """The printed terms of Proposition 3 at W in the direction w; index j means W_j, counted from 1."""

    def __init__(self, theta, w, d_y):
        self.W, self.w, self.H, self.d_y = (None, *theta), (None, *w), len(theta) - 1, d_y

    def between(self, j, k):
        """(Pi W)_j^k, the identity where k < j."""
        return product(self.W[j : k + 1]) if j <= k else np.eye(self.W[j].shape[1] if j <= self.H + 1 else self.d_y)

    def Q1(self, j):
        return self.between(j + 1, self.H) @ self.w[j] @ self.between(2, j - 1)

    def Q2(self, j, k):
        j, k = min(j, k), max(j, k)
        return self.between(k + 1, self.H) @ self.w[k] @ self.between(j + 1, k - 1) @ self.w[j] @ self.between(2, j - 1)

    def values(self, pairs):
        """Delta_W(w) and H_W(w), the double sum over `pairs`."""
        middle, last, lead = range(2, self.H + 1), self.W[self.H + 1], self.w[self.H + 1]
        Z, R = self.between(2, self.H), self.between(2, self.H + 1)
        first = second = 0.0
        for columns, error in self._halves(R):
            W_1, w_1 = self.W[1][:, columns], self.w[1][:, columns]
            change = sum(last @ self.Q1(j) @ W_1 for j in middle) + lead @ Z @ W_1 + R @ w_1
            twice = sum(last @ self.Q2(j, k) @ W_1 for j, k in pairs) + lead @ Z @ w_1
            twice = twice + sum(lead @ self.Q1(j) @ W_1 + last @ self.Q1(j) @ w_1 for j in middle)
            first -= np.trace(change @ error.T)
            second += np.sum(change**2) / 2 - np.trace(twice @ error.T)
        return first, second

    def _halves(self, R):
        """Columns of W_{1,1} and W_{1,2}, with M and - R W_{1,2}."""
        sigma = np.asarray(reduced_target((self.W[1].shape[1], self.d_y))[0])
        yield slice(0, self.d_y), sigma[:, : self.d_y] - R @ self.W[1][:, : self.d_y]
        yield slice(self.d_y, None), -R @ self.W[1][:, self.d_y :]


@claim(
    "B.prop3",
    source="Proposition 3 with equation (15)",
    expected=Verdict.CORRECTED,
    statement="L(W + w) = L(W) + Delta_W(w) + H_W(w) + O(|w|^3) with the printed Delta_W and H_W, which are the "
    "differential and the Hessian.",
)
def expansion_of_the_loss(key):
    """Compare the printed terms with automatic differentiation for three hidden layers."""
    widths = (3, 2, 3, 2, 2)
    keys = jax.random.split(key, 8)
    shapes = list(zip(widths[1:], widths, strict=False))
    theta = tuple(jax.random.normal(k, s) for k, s in zip(keys[:4], shapes, strict=True))
    w = tuple(jax.random.normal(k, s) for k, s in zip(keys[4:], shapes, strict=True))
    loss = problems.whitened(reduced_target(widths)[0], 0.5)
    line = lambda t: loss(jax.tree.map(lambda a, b: a + t * b, theta, w))  # noqa: E731
    slope, curve = float(jax.grad(line)(0.0)), float(jax.grad(jax.grad(line))(0.0))
    terms = _Expansion(*(tuple(np.asarray(leaf) for leaf in tree) for tree in (theta, w)), widths[-1])
    once = terms.values([(2, 3)])
    ordered = terms.values([(2, 3), (3, 2)])
    numbers = {
        "error of Delta_W": once[0] - slope,
        "error of H_W, second order, pairs j < k once": once[1] - curve / 2,
        "error of H_W, every ordered pair j != k": ordered[1] - curve / 2,
        "H_W against the quadratic form of the Hessian": once[1] / curve,
    }
    small = 1e-10 * max(abs(slope), abs(curve))
    corrected = abs(once[0] - slope) < small and abs(once[1] - curve / 2) < small
    note = (
        "The double sums run over j < k (printed: j != k, which counts every pair twice from three hidden layers on), "
        "and H_W(w) is half the quadratic form of the Hessian."
    )
    printed = corrected and abs(ordered[1] - curve / 2) < small and abs(once[1] - curve) < small
    return Finding(judge(printed, corrected), numbers, note)


#
# Critical points
#


@lru_cache(maxsize=1)
def saddles(num: int = 2):
    """Random critical points of every stratum but that of the minima, for every shape: a row for each."""
    return [row for number, widths in enumerate(SHAPES) for row in kept(_saddles, number, widths, num)]


def _saddles(number: int, widths: tuple[int, ...], num: int) -> list[dict]:
    target, sigma = reduced_target(widths)
    loss, rows = LinearNetwork(jnp.eye(widths[0]), target, 0.5), []
    sets = [fitted for fitted in strata.fitted_sets(widths) if len(fitted) < widths[-1]]
    keys = jax.random.split(jax.random.key(number), num * len(sets))
    points = [strata.critical_point(k, target, widths, sets[i // num]) for i, k in enumerate(keys)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    values, slopes, losses = ensembles.map_points(partial(_look, loss), stacked)
    require(bool(slopes.max() < 1e-10), f"points of shape {widths} are not critical")
    for i, point in enumerate(points):
        inertia = tuple(int(count) for count in curvature.count_signs(jnp.asarray(values[i])))
        rows.append({"widths": widths, "fitted": sets[i // num], "inertia": inertia, "loss": losses[i],
                     "point": jax.tree.map(np.asarray, point), "sigma": sigma})  # fmt: skip
    return rows


def _look(loss, theta):
    gradient = ravel_pytree(jax.grad(loss)(theta))[0]
    return curvature.eigenvalues(loss, theta), jnp.linalg.norm(gradient), loss(theta)


def deep_critical_points(key):
    """With two hidden layers: balanced critical points for several sets, moved by random gauges."""
    widths = (3, 3, 3, 2)
    target, sigma = reduced_target(widths)
    for fitted, k in zip([(), (0,), (1,)], jax.random.split(key, 3), strict=True):
        first, second, last = balanced_factorisation(target, widths, fitted=fitted)
        A, B = (jnp.eye(3) + 0.3 * jax.random.normal(kk, (3, 3)) for kk in jax.random.split(k))
        point = (A @ first, B @ second @ jnp.linalg.inv(A), last @ jnp.linalg.inv(B))
        yield {"widths": widths, "fitted": fitted, "sigma": sigma, "point": jax.tree.map(np.asarray, point),
               "loss": float(problems.whitened(target, 0.5)(point))}  # fmt: skip


@claim(
    "B.lem3.2",
    source="Lemma 3.2",
    expected=Verdict.HOLDS,
    statement="At a critical point R W_11 = S_Y D_W with r ones in the diagonal D_W, R^T = R^T D_W, Z W_112 = 0, "
    "W_(H+1),2 Z = 0, and L is half the sum of squares of the singular values that are not fitted.",
)
def conditions_at_critical_points(key):
    """Evaluate every condition at points of all strata (H = 1) and at critical points with H = 2."""
    worst, rows = 0.0, [*saddles(), *deep_critical_points(key)]
    for row in rows:
        d_y, (first, *rest) = row["widths"][-1], row["point"]
        S, R = np.diag(row["sigma"]), product(rest)
        Z = product(rest[:-1]) if len(rest) > 1 else np.eye(first.shape[0])
        chosen = np.isin(np.arange(d_y), row["fitted"])
        D = np.diag(chosen.astype(float))
        require(np.linalg.matrix_rank(R, rtol=1e-9) == len(row["fitted"]), "rank R is not r")
        errors = [
            R @ first[:, :d_y] - S @ D,
            R.T - R.T @ D,
            Z @ first[:, :d_y][:, ~chosen],
            rest[-1][~chosen] @ Z,
            (rest[-1][chosen] @ Z) @ first[:, d_y:],
            np.atleast_1d(row["loss"] - 0.5 * np.sum(row["sigma"][~chosen] ** 2)),
        ]
        worst = max(worst, *(np.abs(error).max(initial=0.0) for error in errors))
    numbers = {"critical points": len(rows), "largest violation of any condition": worst}
    return Finding(
        judge(worst < 1e-9), numbers, "Necessary conditions, as the paper says; checked where they must hold."
    )


@claim(
    "B.prop4",
    source="Proposition 4",
    expected=Verdict.CORRECTED,
    statement="(i) Every local minimum is a global maximum [sic], other critical points are saddles; (ii) for H = 1 "
    "every saddle has a negative eigenvalue, for H >= 2 some have none; (iii) saddles form a variety of positive "
    "dimension, and r_Z > r implies a negative eigenvalue.",
)
def landscape(key):
    """Inertia on every stratum for H = 1; saddles without and with negative eigenvalue for H = 2."""
    del key
    rows = saddles()
    strict = all(row["inertia"][0] > 0 for row in rows)
    widths = (2, 2, 2, 2)
    target, sigma = reduced_target(widths)
    loss = problems.whitened(target, 0.5)
    flat = [strata.nonstrict_saddle(target, widths, fitted) for fitted in (0, 1)]
    wide = (jnp.diag(jnp.array([sigma[0], 0.0])), jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0])))  # r = 1, r_Z = 2
    swapped = balanced_factorisation(target, widths, fitted=(1,))  # r_Z = r = 1, the larger value missed
    values, slopes, levels = zip(*(_look(loss, theta) for theta in (*flat, wide, swapped)), strict=True)
    require(max(map(float, slopes)) < 1e-12 and min(map(float, levels)) > 0.1, "no saddles")
    least = [float(v[0]) for v in values]
    isolated = strata.stratum_dimension((1, 1, 1), 0)
    minimum = float(loss(balanced_factorisation(target, widths)))
    numbers = {
        "saddles with H = 1": len(rows),
        "all of them strict": strict,
        "H = 2, non-strict saddles: least eigenvalue for r = 0, 1": least[:2],
        "H = 2, r_Z = 2 > r = 1: least eigenvalue": least[2],
        "H = 2, r_Z = r = 1, larger singular value missed: least eigenvalue": least[3],
        "d_x = d_1 = d_y = 1: dimension of the set of saddles": isolated,
        "loss at a local minimum, which is no maximum": minimum,
    }
    corrected = strict and min(least[:2]) > -1e-10 and least[2] < -0.1 and least[3] < -0.1
    note = (
        "(i) read global minimum. (iii) r_Z > r is sufficient and not necessary; with one neuron everywhere the origin "
        "is the only saddle, so the dimension can be 0."
    )
    local_minimum_is_maximum = minimum >= max(map(float, levels))
    return Finding(judge(corrected and local_minimum_is_maximum and isolated > 0, corrected), numbers, note)


@claim(
    "B.prop5",
    source="Proposition 5 with equation (27)",
    expected=Verdict.CORRECTED,
    statement="For H = 1 each stratum is a manifold of dimension r d_1 + (d_y - r) r + (d_y - r)(d_x - d_y), tangent "
    "to the kernel of the Hessian.",
)
def dimension_of_strata(key):
    """Count zero eigenvalues at random points of every stratum, against the printed and the corrected dimension."""
    del key
    rows = saddles()
    wrong_printed, wrong, wrong_inertia, tangent = 0, 0, 0, 0
    for row in rows:
        (d_x, d_1, d_y), r = row["widths"], len(row["fitted"])
        printed = r * d_1 + (d_y - r) * r + (d_y - r) * (d_x - d_y)
        wrong_printed += row["inertia"][1] != printed
        wrong += row["inertia"][1] != strata.stratum_dimension(row["widths"], r)
        wrong_inertia += row["inertia"] != strata.critical_inertia(row["sigma"], row["widths"], row["fitted"])
        tangent += _tangent_dimension(row) != row["inertia"][1]
    numbers = {
        "critical points": len(rows),
        "shapes": len(SHAPES),
        "printed dimension differs from the kernel": wrong_printed,
        "corrected dimension differs from the kernel": wrong,
        "predicted (n_-, n_0, n_+) differs": wrong_inertia,
        "kernel of the differentiated equations (24) differs": tangent,
    }
    note = (
        "The dimension is r^2 + 2 r (d_1 - r) + (d_1 - r)(d_x - d_y); (27) agrees for d_1 = d_y only. On a stratum L "
        "is half the sum of squares of the singular values that do *not* belong to the set."
    )
    corrected = wrong == wrong_inertia == tangent == 0
    return Finding(judge(corrected and wrong_printed == 0, corrected), numbers, note)


def _tangent_dimension(row):
    """Dimension of the solutions of the linearised (24): what the stratum's tangent space is where (24) is regular."""
    first, last = row["point"]
    d_y = row["widths"][-1]
    chosen = np.isin(np.arange(d_y), row["fitted"])
    free = np.concatenate([chosen, np.ones(first.shape[1] - d_y, bool)])
    A, B = last[chosen], first[:, free]  # A B = [D_Y 0]; the other rows of W_2 and columns of W_1 vanish
    equations = np.hstack([np.kron(A, np.eye(B.shape[1])), np.kron(np.eye(A.shape[0]), B.T)])
    rank = np.linalg.matrix_rank(equations, rtol=1e-9) if A.size else 0
    return A.size + B.size - rank
