"""At the threshold: flips, catapults, and optimisers with momentum as maps, by statements of the literature."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import bifurcation, ensembles, figures, orbits, sampling, stability, updates
from gdstab._types import Scalar
from gdstab.basins import stability_diagram
from gdstab.claims.a.past_threshold import PLANE
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.figures import style
from gdstab.losses import Quadratic, VectorProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import catapult, optimisers

RULES = "heavy-ball", "nesterov", "rmsprop", "adam"
MOMENT = np.array([0.04, 0.5, 1.3])
"""The second moment at which adaptive rules are held, as many of these as there are parameters."""


class Germ(eqx.Module):
    """A loss of one parameter with a minimum at 0, given by its derivatives there."""

    second: Scalar
    third: Scalar
    fourth: Scalar

    def __call__(self, x):
        """The polynomial of degree 4."""
        return x * x * (self.second / 2 + x * (self.third / 6 + x * self.fourth / 24))


@claim(
    "A.flip",
    source="Chen and Bruna 2022 (arXiv:2206.04172), for Section 5",
    expected=Verdict.HOLDS,
    statement="Where L'' eta_0 = 2 at a minimum on the line, a stable orbit of period 2 is born above eta_0 if "
    "3 L'''^2 > L'' L'''', with the squared amplitude (eta - eta_0) 3 L''^3 / (3 L'''^2 - L'' L'''') to first order; "
    "an unstable one is there below eta_0 if 3 L'''^2 < L'' L''''.",
)
def flip_of_descent(key, num: int = 12):
    """The coefficient by autodiff against its formula, and the amplitude of refined orbits against the slope."""
    rows = [flip_row(*germ) for germ in germs(key, num)]
    across = [normal_row(x) for x in (1.0, 1.2, 1.7, 3.0)]
    rounding = max(row["coefficient, relative error"] for row in rows)
    slope = max(abs(row["extrapolated slope over predicted"] - 1) for row in rows)
    orders = [row["order of the error"] for row in rows]
    normal, drift = (max(row[name] for row in across) for name in ("coefficient", "drift, error"))
    numbers = {
        "losses, of them subcritical": [len(rows), sum(not row["supercritical"] for row in rows)],
        "coefficient by autodiff from the formula": rounding,
        "squared amplitude per unit of step size from the formula, extrapolated": slope,
        "order in which its error vanishes": [min(orders), max(orders)],
        "minima (x, 1/x) of (1 - xy)^2: coefficient from 32 / (x^2 + y^2)^3": normal,
        "and the drift along them from -2 (x^2 - y^2) / (x^2 + y^2)^(3/2)": drift,
    }
    stable = all(row["stable"] == row["supercritical"] == row["above"] for row in rows)
    holds = rounding < 1e-11 and slope < 1e-5 and stable and min(orders) > 0.9 and normal < 1e-11 and drift < 1e-11
    note = (
        "The slope is met to first order: its relative error falls in proportion to eta - eta_0. On the hyperbola of "
        "minima the same formula holds for the loss along the normal; but except at the flattest one oscillations "
        "drift along the hyperbola, to where it is flatter, and no orbit of period 2 is born there."
    )
    return Finding(judge(holds), numbers, note)


def germs(key, num: int) -> np.ndarray:
    """Random derivatives [num, 3] of both kinds, none of them close to the change from one to the other."""
    drawn = np.asarray(sampling.box(key, 8 * num, ((0.5, 2.0), (-2.0, 2.0), (-6.0, 6.0))))
    coefficient = catapult.flip_coefficient(*drawn.T)
    fair = (np.abs(coefficient) > 0.3) & (np.abs(coefficient) < 3)
    return np.concatenate([drawn[fair & kind][: num // 2] for kind in (coefficient > 0, coefficient < 0)])


def flip_row(second: float, third: float, fourth: float) -> dict:
    """One loss: its flip by autodiff, and orbits of period 2 at three distances from it."""
    loss, flip = Germ(*map(jnp.asarray, (second, third, fourth))), 2 / second
    form = bifurcation.flip_form(DESCENT, loss, jnp.array(0.0), flip)
    exact = catapult.flip_coefficient(second, third, fourth)
    slope = catapult.flip_slope(second, third, fourth)
    changes = np.sign(slope) * flip * 1e-4 * np.array([4.0, 2.0, 1.0])
    ratios, stable = [], []
    for change in changes:
        size = np.sqrt(slope * change)
        bend = float(form.bend[0])
        cycle = orbits.refine(DESCENT, loss, jnp.asarray(size + size**2 / 2 * bend), flip + change, 2)
        require(bool(cycle.converged), "Newton's method found no orbit of period 2")
        ratios.append(float((cycle.theta[0] - cycle.theta[1]) ** 2) / 4 / (slope * change))
        stable.append(bool(cycle.stable))
    errors = np.array(ratios) - 1
    return {
        "supercritical": bool(form.supercritical),
        "above": bool(changes[0] > 0),
        "stable": all(stable) if any(stable) == all(stable) else None,
        "coefficient, relative error": abs(float(form.coefficient) / exact - 1),
        # Errors of first and second order taken out.
        "extrapolated slope over predicted": (8 * ratios[2] - 6 * ratios[1] + ratios[0]) / 3,
        "order of the error": float(np.log2(abs(errors[0] / errors[1]))),
    }


def normal_row(x: float) -> dict:
    """A minimum (x, 1/x) of (1 - xy)^2, S = x^2 + y^2: errors of its coefficient and of its drift."""
    # Along its normal L'' = 2 S, L''' = 12 / sqrt S and L'''' = 24 / S^2.
    theta, squares = np.array([x, 1 / x]), x * x + 1 / (x * x)
    form = bifurcation.flip_form(DESCENT, PLANE, jnp.asarray(theta), 1 / squares)
    exact = catapult.flip_coefficient(2 * squares, 12 / squares**0.5, 24 / squares**2)
    along = theta * np.array([1.0, -1.0]) / squares**0.5
    # -(eta / 2) times the slope of 2 S along the hyperbola.
    drift = -2 * (theta[0] ** 2 - theta[1] ** 2) / squares**1.5 * along
    return {
        "coefficient": abs(float(form.coefficient) / exact - 1),
        "drift": float(np.linalg.norm(form.drift)),
        "drift, error": float(np.linalg.norm(np.asarray(form.drift) - drift)),
    }


@claim(
    "A.catapult",
    source="Lewkowycz et al. 2020 (arXiv:2003.02218), for Section 5",
    expected=Verdict.HOLDS,
    statement="For f = u.v / sqrt n and L = f^2 / 2 one step takes f to (1 - eta lam + eta^2 f^2 / n) f and the "
    "curvature lam = (|u|^2 + |v|^2) / n to lam + (eta f^2 / n)(eta lam - 4). From eta lam < 2 wide networks converge "
    "with lam nearly unchanged, from 2 < eta lam < 4 with lam < 2 / eta in the end, and above 4 they diverge.",
)
def catapult_of_two_layers(key, width: int = 1024, num: int = 16, widths: tuple[int, ...] = (1, 4, 64, 1024)):
    """The identities on random networks of several widths, and where orbits of wide ones end."""
    identities = {n: identity_error(key, n) for n in widths}
    found = phases(key, width, num)
    products, converged, diverged, ends, growth = found.values()
    near = np.minimum(abs(products - 2), abs(products - 4)) < 0.05
    lazy, caught, gone = (
        np.array([catapult.phase(product, 1.0) is phase for product in products]) & ~near for phase in catapult.Phase
    )
    numbers = {
        "largest relative error of the identities, by width": identities,
        "width, networks": [width, num],
        "eta lam at the start": products.round(9),
        "share that converges": converged.mean(axis=1),
        "largest eta lam of those in the end": np.where(converged, ends, 0).max(axis=1),
        "median of the largest loss over the first, below 4": np.median(growth[products < 3.95], axis=1),
    }
    holds = (
        max(identities.values()) < 1e-12
        and bool(converged[lazy | caught].all() and diverged[gone].all())
        and bool((abs(ends[lazy] / products[lazy, None] - 1) < 0.05).all() and (growth[lazy] <= 1).all())
        and bool((ends[caught] < 2).all() and (growth[caught] > 1).all())
    )
    note = (
        "The identities are exact at every width; the phases are those of large widths, and within 0.05 of their two "
        "edges they are not put to the test. In the catapult the loss first grows to the order of the width."
    )
    return Finding(judge(holds), numbers, note, partial(draw_catapult, found, width))


def networks(key, width: int, num: int):
    """Standard normal weights [num, 2 width], the loss, and their curvatures."""
    points = np.asarray(sampling.gaussian(key, num, 2 * width, 1.0))
    return points, VectorProduct(dim=width, target=0.0, scale=0.5 / width), np.sum(points**2, axis=1) / width


def identity_error(key, width: int, num: int = 64) -> float:
    """The largest error of the two identities over one step, relative to the largest output and to the curvature."""
    points, loss, curvature = networks(key, width, num)
    sizes = np.linspace(0.1, 5.0, num) / curvature
    moved = ensembles.run(DESCENT, loss, points, sizes, StoppingRule(None, max_steps=1), product=False).theta
    output, after = (np.sum(p[:, :width] * p[:, width:], axis=1) / np.sqrt(width) for p in (points, moved))
    predicted, bent = catapult.catapult_step(output, curvature, sizes, width)
    off = np.abs(bent / (np.sum(moved**2, axis=1) / width) - 1)
    return float(max(np.abs(predicted - after).max() / np.abs(after).max(), off.max()))


def phases(key, width: int, num: int, watched: int = 100) -> dict[str, np.ndarray]:
    """Orbits of `num` networks from many values of eta lam: who converges, with which eta lam, after what growth."""
    points, loss, curvature = networks(key, width, num)
    products = np.linspace(0.2, 5.0, 25)
    lanes, sizes = np.tile(points, (len(products), 1)), (products[:, None] / curvature).ravel()
    stopping = StoppingRule(1e-10, escape_radius=1e4, max_steps=20_000)
    found = ensembles.run(DESCENT, loss, lanes, sizes, stopping, product=False)
    run = orbits.rollout(DESCENT, watched, observe=loss)
    growth = ensembles.map_points(lambda lane: jnp.max(run(loss, *lane)[1]) / loss(lane[0]), (lanes, sizes))
    ends = np.sum(found.theta**2, axis=1) / width * sizes
    fields = {"converged": found.outcome == Outcome.CONVERGED, "gone": found.outcome == Outcome.DIVERGED,
              "ends": ends, "growth": growth}  # fmt: skip
    return {"products": products} | {name: value.reshape(len(products), num) for name, value in fields.items()}


@claim(
    "A.momentum",
    source="Polyak 1964; Cohen et al. 2021 (arXiv:2103.00065) and 2022 (arXiv:2207.14484), for Section 5",
    expected=Verdict.HOLDS,
    statement="A minimum of largest curvature lam is linearly stable up to the step size 2 (1 + beta) / lam under "
    "heavy ball and 2 (1 + beta) / ((1 + 2 beta) lam) under Nesterov's momentum; with lam that of the Hessian "
    "preconditioned at a frozen second moment, up to 2 / lam under RMSprop and 2 (1 + beta1) / ((1 - beta1) lam) under "
    "Adam.",
)
def thresholds_of_optimisers(key, resolution: tuple[int, int] = (48, 24), rules: tuple[str, ...] = RULES):
    """By bisection on the multipliers of the whole map, and by the engine's orbits over step size and momentum."""
    bisected = {rule: kept(_bisected, rule, key) for rule in rules}
    planes = {rule: plane(rule, resolution) for rule in rules if rule in {"heavy-ball", "nesterov"}}
    seen = {rule: stability_diagram.compare(found) for rule, found in planes.items()}
    numbers = {
        "quadratics: relative difference of the bisected threshold": {rule: both[0] for rule, both in bisected.items()},
        "minima (x, 1/x) of (1 - xy)^2, the largest": {rule: both[1] for rule, both in bisected.items()},
    }
    for rule, compared in seen.items():
        names = ("lanes", "contradictions", "undecided_below", "slow_within", "measured", "spacing")
        numbers[f"{rule}, orbits over step size and beta"] = {name: compared[name] for name in names}
    holds = max(max(both) for both in bisected.values()) < 1e-6 and all(
        found["contradictions"] == 0 and found["slow_within"] < found["spacing"] for found in seen.values()
    )
    note = (
        "A multiplier passes -1 there, as under descent. At the true fixed point of an adaptive rule the second moment "
        "is 0, and the map has no derivative: here it is held at (0.04, 0.5, 1.3)."
    )
    return Finding(judge(holds), numbers, note, partial(draw_momentum, planes["heavy-ball"]) if planes else None)


def _bisected(rule: str, key) -> tuple[float, float]:
    """Of a quadratic form, and the largest of some minima."""
    matrix = np.asarray(jax.random.normal(key, (3, 3)))
    return of_quadratic(rule, matrix @ matrix.T), max(map(partial(of_minimum, rule), (1.0, 1.6, 3.0)))


def held(name: str, dim: int, beta: float = 0.9) -> tuple[updates.UpdateRule, np.ndarray]:
    """A rule, adaptive ones at the second moment `MOMENT`, and the diagonal of its preconditioner."""
    rule, eps, nu = updates.named(name, beta=beta), 1e-8, MOMENT[:dim]
    if name in optimisers.ADAPTIVE:
        rule = updates.frozen(rule, jnp.asarray(nu))
    return rule, optimisers.preconditioner(name, nu, eps)


def of_quadratic(name: str, matrix: np.ndarray) -> float:
    """The relative difference of the two thresholds on a quadratic form, its curvature by NumPy's eigenvalues."""
    rule, scale = held(name, len(matrix))
    curvature = np.linalg.eigvalsh(matrix / np.sqrt(np.outer(scale, scale)))[-1]
    return difference(name, rule, Quadratic(jnp.asarray(matrix)), np.zeros(len(matrix)), curvature)


def of_minimum(name: str, x: float) -> float:
    """The same at the minimum (x, 1/x) of (1 - xy)^2, whose preconditioned Hessian has rank one."""
    rule, scale = held(name, 2)
    theta = np.array([x, 1 / x])
    return difference(name, rule, PLANE, theta, 2 * np.sum(theta[::-1] ** 2 / scale))


def difference(name: str, rule, loss, theta: np.ndarray, curvature: float, beta: float = 0.9) -> float:
    """Of the bisected threshold from the closed form, relative to that."""
    exact = float(optimisers.threshold(name, curvature, beta=beta))
    found = stability.threshold_of(rule, loss, jnp.asarray(theta), exact / 20, exact * 2)
    require(abs(found.multiplier + 1) < 1e-3, f"the multiplier that leaves is {found.multiplier:.4g}, not -1")
    return abs(found.step_size / exact - 1)


def plane(name: str, resolution: tuple[int, int]) -> stability_diagram.Diagram:
    """What becomes of orbits from near the minimum (1, 1) of (1 - xy)^2, for every step size and momentum."""
    return stability_diagram.Diagram(*kept(_plane, name, resolution))


def _plane(name: str, resolution: tuple[int, int]) -> tuple:
    num, momenta = resolution
    betas = np.linspace(0.0, 0.95, momenta)
    threshold = np.array([float(optimisers.threshold(name, 4.0, beta=beta)) for beta in betas])
    stopping = StoppingRule(None, 1e-9, escape_radius=1e3, max_steps=20_000, max_period=8)
    rule = updates.named_family(name)
    return tuple(stability_diagram.diagram(rule, PLANE, np.ones(2), betas, threshold, stopping, num=num))


def draw_catapult(found: dict[str, np.ndarray], width: int):
    """The curvature in the end against that at the start on the left, the growth of the loss on the right."""
    products, converged = found["products"], found["converged"]
    with style.style():
        figure = style.new_figure(6.6, 2.9)
        left, right = figure.subplots(1, 2)
        start = np.broadcast_to(products[:, None], converged.shape)
        left.plot(start[converged], found["ends"][converged], "o", color="#0072b2", markersize=2.5)
        left.plot([0, 5], [0, 5], color="#888888", linewidth=0.9)
        left.axhline(2, color="#d55e00", linewidth=1.0, linestyle="--", label=r"limit of stability, $\eta \lambda = 2$")
        left.set(
            xlim=(0, 5), ylim=(0, 3), ylabel=r"$\eta \lambda$ in the end", title="(a) curvature, where it converges"
        )
        left.legend(loc="upper right")
        below = products < 3.95  # at 4 rounding decides who diverges
        right.plot(start[below], np.maximum(found["growth"][below], 1), "o", color="#0072b2", markersize=2.5)
        right.set(yscale="log", xlim=(0, 5), ylabel="largest loss / first loss", title=f"(b) growth, width {width}")
        for axes in (left, right):
            axes.set_xlabel(r"$\eta \lambda$ at the start")
            for edge in (2, 4):
                axes.axvline(edge, color="black", linewidth=0.7, linestyle=":", zorder=0)
    return figure


def draw_momentum(found: stability_diagram.Diagram, step_size: float = 0.3, beta: float = 0.9):
    """The plane of heavy ball, and the multipliers of one of its maps."""
    rule = updates.named("heavy-ball", beta=beta)
    state = stability.extend(rule, PLANE, jnp.ones(2), step_size)
    values, matrix = (
        np.asarray(of(rule, PLANE, state, step_size)) for of in (stability.multipliers, stability.jacobian)
    )
    here = figures.MultiplierMap("heavy-ball", step_size, beta, values, stability.numerical_range(matrix))
    return figures.draw_multipliers(figures.StabilityPlane(*found[:5]), here)
