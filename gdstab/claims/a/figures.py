"""Paper A, Figures 1 and 2 with appendix B, and evidence on the open questions of its section 5."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import basins, curvature, ensembles, figures, minima, orbits, sampling, stability
from gdstab.claims import problems
from gdstab.claims.problems import DESCENT, decoupled_network, singularity
from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.figures import claims as draw
from gdstab.losses import ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import known, scalar

RECTANGLE = ((-4.0, 4.0), (-4.0, 4.0))


@claim(
    "A.fig1a",
    source="Figure 1(a)",
    expected=Verdict.HOLDS,
    statement="For L = (1 - xy)^2 and eta = 0.3 the points that converge fill a region around the stable minima, and "
    "the others diverge.",
)
def heatmap_of_iterates(key):
    """Draw it, and hold every cell against the exact trapping ellipse."""
    del key
    loss, stopping = ScalarProduct(scale=1.0), StoppingRule(grad_tol=1e-10, max_steps=20_000)
    result = basins.heatmap(DESCENT, loss, 0.3, box=RECTANGLE, resolution=(400, 400), stopping=stopping)
    kinds = basins.refine(DESCENT, loss, result, stopping=stopping, classify=stability.classify, kinds=stability.Kind)
    exact, (x, y) = scalar.basin_area(0.3, scale=1.0), result.centres
    energy = scalar.trapping_energy(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1), 0.3, scale=1.0)
    gone = np.isin(result.outcome, (Outcome.DIVERGED, Outcome.NONFINITE))
    against = int(np.count_nonzero((energy < 0) & gone) + np.count_nonzero((energy > 0) & ~gone))
    numbers = {
        "cells": result.counts,
        "converged to": kinds.counts,
        "area that converged": result.area,
        "exact area of the ellipse": exact,
        "verdicts against the theory": against,
    }
    note = (
        "The region is the ellipse x^2 + y^2 - k x y < (4 - k^2)/k, k = 0.6, exactly. Cells on the anti-diagonal, a "
        "null set, go to the saddle."
    )
    holds = against == 0 and abs(result.area / exact - 1) < 0.01
    agrees = holds and result.counts["undecided"] == result.counts["cycling"] == 0
    edge = [scalar.ellipse_curve(0.3, scale=1.0)]
    overlay = figures.Overlay(*known(loss).minima(RECTANGLE, 0.3), edge)
    return Finding(judge(agrees), numbers, note, lambda: figures.draw_heatmap(result, overlay))


@claim(
    "A.fig1b",
    source="Figure 1(b)",
    expected=Verdict.HOLDS,
    statement="With growing eta the stable part of the hyperbola in [-4, 4]^2 shrinks and vanishes at a critical "
    "value, while the trapping region shrinks.",
)
def ratios_of_area_and_length(key):
    """Measure both on a grid and along a traced curve, and hold them against the exact ratios."""
    del key
    loss, step_sizes = ScalarProduct(scale=1.0), np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.55, 0.7, 0.85])
    points = sampling.grid(RECTANGLE, (150, 150))
    ends = ensembles.run(DESCENT, loss, points, step_sizes, StoppingRule(max_steps=2000), keep=())
    area = np.mean((ends.outcome != Outcome.DIVERGED) & (ends.outcome != Outcome.NONFINITE), axis=1)
    whole = scalar.minima_length(RECTANGLE)
    curve = minima.trace_curve(loss, jnp.ones(2), whole / 4, whole / 4 / 400)
    length = 2 * minima.stable_length(curve, step_sizes) / whole
    exact = _exact_ratios(step_sizes, whole)
    measured = np.stack([area, length], axis=-1)
    error = np.abs(measured - exact)
    numbers = {
        "step sizes": step_sizes,
        "area ratio, measured": area,
        "area ratio, exact": exact[:, 0],
        "length ratio, measured": length,
        "length ratio, exact": exact[:, 1],
        "largest errors": error.max(axis=0),
    }
    vanishes = bool((length[step_sizes > 0.5] == 0).all() and (length[step_sizes < 0.5] > 0).all())
    note = "The stable minima vanish at eta_C = 1/2. What is trapped beyond, up to eta = 1, does not converge."
    fine = np.linspace(0.02, 1.0, 197)

    def figure():
        return draw.draw_ratios(fine, _exact_ratios(fine, whole), step_sizes, measured)

    holds = vanishes and error[:, 0].max() < 0.005 and error[:, 1].max() < 1e-6
    return Finding(judge(holds), numbers, note, figure)


def _exact_ratios(step_sizes, whole):
    rows = [
        (
            scalar.trapping_area(eta, 1.0, 1.0, RECTANGLE) / 64,
            scalar.stable_minima(eta, 1.0, 1.0, RECTANGLE).length / whole,
        )
        for eta in step_sizes
    ]
    return np.array(rows)


@claim(
    "A.appB",
    source="Appendix B with equation (15) and Figure 2",
    expected=Verdict.CORRECTED,
    statement="For L = (1/2)(1 - xy)^2: the gradient and Hessian (15), sharpness x^2 + y^2 on M, eta_E = eta_C = 1; at "
    "eta = 0.4 iterates converge to M_S = {x^2 + y^2 < 2/eta}, at eta = 1.1 none does.",
)
def two_neuron_network(key):
    """Compare (15) with automatic differentiation, and both panels of Figure 2 with ensembles."""
    loss = ScalarProduct(scale=0.5)
    points = sampling.box(key, 2000, ((-2.5, 2.5), (-2.5, 2.5)))
    x, y = np.asarray(points).T
    H = ensembles.map_points(lambda theta: curvature.hessian(loss, theta), points)
    printed = np.array([[y**2, 1 - 2 * x * y], [1 - 2 * x * y, x**2]]).transpose(2, 0, 1)
    corrected = np.array([[y**2, 2 * x * y - 1], [2 * x * y - 1, x**2]]).transpose(2, 0, 1)
    errors = [float(np.abs(H - other).max()) for other in (printed, corrected)]
    spectra_agree = np.allclose(np.linalg.eigvalsh(H), np.linalg.eigvalsh(printed))
    ends, fates = {}, {}
    for eta in (0.4, 1.1):
        inside = points[np.asarray(scalar.trapping_energy(points, eta)) < 0]
        ends[eta] = ensembles.run(DESCENT, loss, inside, eta, StoppingRule(max_steps=20_000, max_period=8))
        fates[eta] = {v.name.lower(): int(np.sum(ends[eta].outcome == v)) for v in Outcome}
    reached = np.sum(ends[0.4].theta ** 2, axis=1)
    minimum = np.array([1.3, 1 / 1.3])
    sharpness = float(curvature.sharpness(loss, jnp.asarray(minimum)))
    numbers = {
        "largest error of the printed Hessian, of the one with the other sign": errors,
        "their eigenvalues agree": bool(spectra_agree),
        "eta_C": scalar.critical_step(1.0, 0.5),
        "fates in the trapping ellipse, eta = 0.4": fates[0.4],
        "largest x^2 + y^2 at the ends, against 2/eta": [reached.max(), 5.0],
        "fates in the trapping ellipse, eta = 1.1": fates[1.1],
    }
    note = (
        "The off-diagonal entry is 2xy - 1: the eigenvalues are those printed, the eigenvectors are not. Stable means "
        "a multiplier of modulus below 1."
    )
    rest = (
        fates[0.4]["converged"] == len(reached)
        and reached.max() < 5.0
        and fates[1.1]["converged"] == fates[1.1]["diverged"] == 0
        and abs(sharpness - minimum @ minimum) < 1e-12
        and scalar.critical_step(1.0, 0.5) == 1.0
    )
    return Finding(
        judge(rest and errors[0] < 1e-12, rest and errors[1] < 1e-12 and spectra_agree), numbers, note, _figure_2
    )


def _figure_2():
    """Some orbits on both sides of eta_C."""
    loss, panels = ScalarProduct(scale=0.5), []
    sides = [(0.4, ((-0.2, 2.5), (0.0, 2.5)), [(0.1, 0.3), (2.3, 0.2), (1.9, 1.6), (0.3, 2.2)], 60),
             (1.1, ((0.7, 1.25), (0.65, 1.2)), [(0.95, 1.12), (1.15, 1.0)], 400)]  # fmt: skip
    for eta, box, starts, num_steps in sides:
        run = jax.jit(orbits.rollout(DESCENT, num_steps))
        paths = [np.concatenate([[start], run(loss, jnp.array(start), eta)[1]]) for start in starts]
        overlay = figures.Overlay(*known(loss).minima(box, eta))
        cycles = [path[-2:] for path in paths[:1]] if eta > 1 else []
        panels.append(figures.Panel(eta, box, paths, cycles, overlay))
    return figures.draw_trajectories(panels)


#
# Open questions of section 5
#


@claim(
    "A.open1",
    source="Section 5, first question",
    expected=Verdict.OPEN,
    statement="Is G non-singular for non-linear networks, ReLU ones in particular?",
)
def relu_networks(key):
    """Singular Jacobians of ReLU networks on positive inputs, without and with an output bias."""
    key_inputs, key_targets, key_points = jax.random.split(key, 3)
    inputs = jax.random.uniform(key_inputs, (2, 5))
    loss = problems.Shallow(inputs, jax.random.normal(key_targets, (1, 5)), jax.nn.relu)
    step_size = 1 / (2 * loss.scale * 5)
    plain = singularity(loss, loss.points(key_points, 5000, 2), step_size)
    points = loss.points(key_points, 5000, 2, bias=True)
    biased, other = singularity(loss, points, step_size), singularity(loss, points, 0.9 * step_size)
    dead = np.mean((np.einsum("nij,jk->nik", points[0], inputs) <= 0).all(axis=(1, 2)))
    numbers = {
        "no bias": plain,
        "output bias, eta = 1/(2cn)": biased,
        "output bias, eta = 0.9/(2cn)": other,
        "share of points where every neuron is dead": dead,
        "tanh, output bias, inputs +1 and -1, eta = 1/(4c)": singularity(
            decoupled_network(), decoupled_network().points(key, 1000, 1, bias=True), 0.5
        ),
    }
    require(
        abs(biased["share_singular"] - dead) < 1e-12 and dead > 0, "the singular share is not that of dead networks"
    )
    require(plain["share_singular"] == other["share_singular"] == 0, "another open set of singular points")
    note = (
        "Analytic activations: yes, but for the step sizes 1/lambda of constant eigenvalues (Proposition 34). ReLU: no "
        "at eta = 1/(2cn) with an output bias on n samples, where an open set of dead networks is sent to one bias; no "
        "singular point was found elsewhere."
    )
    return Finding(Verdict.OPEN, numbers, note)


@claim(
    "A.open2",
    source="Section 5, second question",
    expected=Verdict.OPEN,
    statement="Are the minima of non-linear networks manifolds?",
)
def minima_of_tanh_networks(key):
    """Rank of the residual's Jacobian at minima of tanh networks; and data that a smaller network fits."""
    x = jnp.array([[-1.0, 0.3, 0.8, 1.7]])
    loss = problems.Shallow(x, jnp.array([[0.5, -0.4, 0.9, 0.1]]), jnp.tanh)
    like = jax.tree.map(lambda leaf: leaf[0], loss.points(key, 1, 4))
    found = minima.sample(loss, key, 200, like, spread=1.5, map=ensembles.map_points)
    on = np.asarray(found.residual_norm) < 1e-10
    J = ensembles.map_points(
        lambda theta: jnp.concatenate([g.reshape(4, -1) for g in jax.jacrev(loss.residual)(theta)], 1), found.theta
    )
    ranks = np.linalg.matrix_rank(J[on], rtol=1e-10)
    fitted = problems.Shallow(x, jnp.tanh(0.7 * x), jnp.tanh)
    sheets = [lambda t: (0.0, 1 - t, t), lambda t: (t, 1.0, 0.0), lambda t: (t, 1 - t, t)]
    off = []
    for sheet in sheets:
        w, a, b = sheet(0.1)
        theta = (jnp.array([[0.7], [0.7 + w]]), jnp.array([[a, b]]))
        off.append(float(jnp.linalg.norm(fitted.residual(theta))))
    numbers = {
        "generic data: minima found": int(on.sum()),
        "ranks of the Jacobian there (4 samples)": sorted(set(ranks.tolist())),
        "data of one neuron, two neurons: residual along two tangents and along their sum": off,
    }
    require(on.sum() > 50, "too few minima were found")
    require(max(off[:2]) < 1e-12 < off[2], "the two sheets do not meet as they must")
    note = (
        "On generic data every minimum found is a regular point. Where a smaller network fits the data, two sheets of "
        "minima cross and M is no manifold."
    )
    return Finding(Verdict.OPEN, numbers, note)


class WeightedRankOne(eqx.Module):
    """Sum of w_ij (t_ij - u_i v_j)^2 on theta = (u, v)."""

    weights: jax.Array
    target: jax.Array

    def __call__(self, theta):
        """The loss at one point."""
        u, v = theta[:2], theta[2:]
        return jnp.sum(self.weights * (self.target - u[:, None] * v[None, :]) ** 2)


@claim(
    "A.open3",
    source="Section 5, third question",
    expected=Verdict.OPEN,
    statement="What happens if the loss functional l is changed?",
)
def weighted_losses(key):
    """Local minima of rank-one approximation, for equal weights and for the weights of Srebro and Jaakkola (2003)."""
    target = jnp.array([[1.0, 1.1], [1.0, -1.0]])
    starts = sampling.gaussian(key, 1000, 4, 1.0)
    levels = {}
    for name, weight in (("equal weights", 1.0), ("weights 1 and 10", 10.0)):
        loss = WeightedRankOne(jnp.array([[weight, 1.0], [1.0, weight]]), target)
        stopping = StoppingRule(loss_tol=None, grad_tol=1e-8, max_steps=100_000)
        ends = ensembles.run(DESCENT, loss, starts, 0.01 / weight**0.5, stopping)
        settled = ends.outcome == Outcome.CONVERGED
        kinds, _ = ensembles.map_points(
            lambda theta, loss=loss: stability.classify(loss, theta, loss_tol=1e3), ends.theta
        )
        found, counts = np.unique(
            np.round(ends.loss[settled & (kinds == stability.Kind.MINIMUM)], 6), return_counts=True
        )
        levels[name] = dict(zip(found.tolist(), counts.tolist(), strict=True))
    numbers = {"loss at local minima, and how many starts of 1000 ended there": levels}
    require(len(levels["equal weights"]) == 1, "the Frobenius norm was to have one local minimum")
    note = "With unequal weights on the entries there are local minima that are not global; equal weights leave one."
    require(len(levels["weights 1 and 10"]) > 1, "the weights were to give a second local minimum")
    return Finding(Verdict.OPEN, numbers, note)


@claim(
    "A.open4",
    source="Section 5, fourth question",
    expected=Verdict.OPEN,
    statement="How flat are the minima of non-linear networks?",
)
def flatness_of_tanh_minima(key):
    """The sharpness along the minima of (1/2)(1 - y tanh x)^2, to infinity."""
    del key
    x = np.array([0.3, 0.8, 1.227, 3.0, 10.0, 100.0, 1000.0])
    points = jnp.asarray(np.stack([x, 1 / np.tanh(x)], axis=-1))
    top = problems.spectra(lambda theta: 0.5 * (1 - theta[1] * jnp.tanh(theta[0])) ** 2, points)[:, -1]
    exact = np.tanh(x) ** 2 + (1 - np.tanh(x) ** 2) ** 2 / np.tanh(x) ** 2
    numbers = {"x": x, "sharpness": top, "least sharpness, exact": 2 * np.sqrt(2) - 2}
    require(bool(np.allclose(top, exact, rtol=1e-9)), "the sharpness is not s^2 + (1 - s^2)^2 / s^2")
    note = (
        "Bounded along an unbounded curve of minima: it tends to 1, so for eta < 2 the stable minima are unbounded. It "
        "has the floor 2 sqrt 2 - 2 > 0, so a critical step size exists here."
    )
    return Finding(Verdict.OPEN, numbers, note)


@claim(
    "A.open5",
    source="Section 5, last question (second conjecture of Ahn et al.)",
    expected=Verdict.OPEN,
    statement="Do compact forward-invariant sets exist?",
)
def invariant_sets(key):
    """Points of the exact trapping ellipse of (1/2)(1 - xy)^2, below and above eta_C."""
    loss, rows = ScalarProduct(scale=0.5), []
    for eta in (0.5, 1.2, 1.9):
        reach = scalar.trapping_ellipse(eta).along
        points = sampling.box(key, 40_000, ((-reach, reach), (-reach, reach)))
        inside = points[np.asarray(scalar.trapping_energy(points, eta)) < 0]
        ends = ensembles.run(DESCENT, loss, inside, eta, StoppingRule(loss_tol=None, max_steps=3000, max_period=4))
        left = np.asarray(scalar.trapping_energy(ends.theta, eta)) > 1e-9
        at_minimum = int(np.sum(ends.loss < 1e-12))  # at the end: a chaotic orbit can come that close for one step
        rows.append({
            "eta": eta, "points": len(inside), "left the ellipse": int(left.sum()), "at a minimum": at_minimum,
            "period 2 or 4": int(np.sum(ends.outcome == Outcome.CYCLING)),
        })  # fmt: skip
    require(all(row["left the ellipse"] == 0 for row in rows), "points left the ellipse")
    require(all(row["at a minimum"] == 0 for row in rows[1:]), "points converged above eta_C")
    note = (
        "Yes for L = c (a - xy)^2 and c (a - u.v)^2 with 2 c eta a < 2: E = x^2 + y^2 + k a (a - xy) - 4/k keeps its "
        "sign, so E <= 0 is invariant, above eta_C = 1 too. Open for general networks."
    )
    return Finding(Verdict.OPEN, {"orbits": rows}, note)
