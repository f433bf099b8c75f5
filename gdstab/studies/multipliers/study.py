"""An optimiser as a map: its multipliers above a minimum, its threshold found and predicted, and the edge of stability.

Three looks at one rule: the multipliers of the whole map (parameters and momentum) above a minimum, with the step size
at which one leaves the unit circle; the plane of step size and momentum, run by the engine; and one orbit with the
curvature that the rule sees along it. Adaptive rules are held at the second moment of that orbit in the first two.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gdstab import curvature, ensembles, orbits, stability, theory, updates
from gdstab._types import LossFn
from gdstab._validate import check_step_sizes
from gdstab.basins import stability_diagram
from gdstab.outcomes import StoppingRule
from gdstab.studies import building
from gdstab.studies.multipliers import Multipliers
from gdstab.studies.phases import SAVING, Phase
from gdstab.studies.work import Needs, Work
from gdstab.theory import optimisers


class Setting(NamedTuple):
    """What the options stand for."""

    loss: LossFn
    start: np.ndarray  # [dim], of the orbit
    stopping: StoppingRule
    needs: Needs


class Orbit(NamedTuple):
    """One orbit, looked at now and then."""

    steps: np.ndarray  # [points]
    theta: np.ndarray  # [points, dim]
    nu: np.ndarray | None  # [points, dim], bias corrected; None without a second moment
    loss: np.ndarray  # [points]
    curvature: np.ndarray  # [points], the largest that the rule sees


class Minimum(NamedTuple):
    """A fixed point of the whole map."""

    rule: updates.UpdateRule  # at a frozen second moment where it has one
    state: object
    theta: np.ndarray
    nu: np.ndarray | None
    curvature: float  # the largest that the rule sees


def prepare(options: Multipliers) -> Setting:
    """Build and check everything."""
    loss, dim, dtype = building.problem(options)
    stopping = building.build_stopping(options)
    _check(options, dtype)
    building.build_rule(options)
    start = building.one_start(options, dim, dtype)
    _check_point(options, loss, dim, dtype)
    orbit = options.num_steps * dim * dtype.itemsize * (2 if options.rule in optimisers.ADAPTIVE else 1)
    lanes = total_lanes(options)
    memory = {"num_steps": orbit, "resolution": lanes * (2 * dim + 1) * dtype.itemsize}
    return Setting(loss, start, stopping, Needs(memory, orbit // options.every + 5 * lanes))


def phases(options: Multipliers) -> dict[str, Phase]:
    """What a run goes through."""
    names = ("orbit", "minimum", "plane of step size and momentum", "thresholds", SAVING)
    return {**dict.fromkeys(names, Phase(2)), names[2]: Phase(4, total_lanes(options))}


def measure(options: Multipliers, setting: Setting, work: Work):
    """One orbit; a minimum, with its multipliers; the plane of step size and momentum there; thresholds."""
    loss = setting.loss
    work.enter("orbit")
    orbit = follow(options, loss, setting.start)
    work.enter("minimum")
    minimum = find_minimum(options, loss, orbit)
    work.enter("plane of step size and momentum")
    diagram = plane(options, loss, minimum, setting.stopping, work.progress)
    work.enter("thresholds")
    args = minimum.rule, loss, minimum.state, options.step_size
    values, matrix = (np.asarray(eqx.filter_jit(study)(*args)) for study in (stability.multipliers, stability.jacobian))
    summary = summarise(options, loss, minimum, orbit, values, matrix)
    summary["diagram"] = stability_diagram.compare(diagram)
    return dataset_of(diagram, orbit, values, stability.numerical_range(matrix)), summary


def total_lanes(options: Multipliers) -> int:
    """How many orbits the engine runs."""
    steps, betas = options.resolution
    return steps * (betas if options.rule in optimisers.MOMENTUM else 1)


def follow(options: Multipliers, loss: LossFn, start: np.ndarray) -> Orbit:
    """The orbit from `start`, with the curvature that the rule sees along it: that of its preconditioned Hessian."""
    rule, eta = building.build_rule(options), jnp.asarray(options.step_size, start.dtype)
    adaptive = options.rule in optimisers.ADAPTIVE

    def observe(state):
        return (rule.theta(state), updates.second_moment(state)) if adaptive else (rule.theta(state), None)

    state = rule.init(jnp.asarray(start), eta)
    path, moments = eqx.filter_jit(orbits.rollout(rule, options.num_steps, observe=observe))(loss, state, eta)[1]
    steps = np.arange(options.every, options.num_steps + 1, options.every)
    theta = np.asarray(path)[steps - 1]
    nu = np.asarray(moments)[steps - 1] if adaptive else None
    if options.rule in {"adam", "adamw"}:
        nu = nu / (1 - options.beta2**steps).astype(nu.dtype)[:, None]
    scale = _preconditioner(options, theta, nu)
    seen = _decayed(options, loss)
    curvature = ensembles.map_points(
        lambda pair: stability.preconditioned_sharpness(seen, pair[0], pair[1]), (theta, scale)
    )
    return Orbit(steps, theta, nu, np.asarray(ensembles.map_points(loss, theta)), np.asarray(curvature))


def find_minimum(options: Multipliers, loss: LossFn, orbit: Orbit) -> Minimum:
    """The fixed point of the whole map near the point asked for.

    Raises
    ------
    ValueError
        If there is none, the map has no derivative there, or the point is no minimum.
    """
    guess = jnp.asarray(_guess(options, loss, orbit), orbit.theta.dtype)
    plain = updates.gradient_descent()
    theta = stability.fixed_point(plain, loss, guess, options.step_size).theta
    rule, nu = building.build_rule(options), None
    if options.rule in optimisers.ADAPTIVE:
        nu = orbit.nu[-1] if options.nu is None else np.full(theta.shape, options.nu, orbit.theta.dtype)
        rule = updates.frozen(rule, jnp.asarray(nu))
    if options.weight_decay:
        state = stability.fixed_point(rule, loss, theta, options.step_size).state
    else:
        state = stability.extend(rule, loss, theta, options.step_size)
    theta = rule.theta(state)
    scale = _preconditioner(options, np.asarray(theta), nu)
    seen = float(stability.preconditioned_sharpness(_decayed(options, loss), theta, jnp.asarray(scale)))
    if not seen > 0:
        raise ValueError(
            f"expected a minimum with some positive curvature near the point, got a largest curvature of {seen:.3g} at "
            f"{np.asarray(theta).tolist()}; give another --point"
        )
    return Minimum(rule, state, np.asarray(theta), nu, seen)


def summarise(
    options: Multipliers, loss: LossFn, minimum: Minimum, orbit: Orbit, values: np.ndarray, matrix: np.ndarray
) -> dict:
    """What `summary.json` holds of the minimum, its multipliers and the Jacobian of the whole map; and of the orbit."""
    growth = stability.transient_growth(matrix, entries=minimum.theta.size)
    radius = float(np.abs(values).max())
    inside = radius <= 1 + np.sqrt(np.finfo(minimum.theta.dtype).eps)
    half = np.median(orbit.curvature[len(orbit.curvature) // 2 :])
    limit = critical_curvature(options)
    return {
        "rule": options.rule,
        "point": minimum.theta,
        "loss": loss(jnp.asarray(minimum.theta)),
        "nu": minimum.nu,
        "curvature": minimum.curvature,
        "multipliers": _parts(values),
        "spectral_radius": radius,
        "threshold": _thresholds(options, loss, minimum),
        "growth": {
            "peak": growth.peak if inside else None, "power": growth.power, "complete": growth.complete,
            "kreiss_bound": stability.kreiss_bound(matrix) if inside else None,
            "numerical_radius": stability.numerical_radius(matrix),
        },
        "manifold": along_the_minima(options, loss, minimum),
        "orbit": {
            "limit": limit, "last_loss": orbit.loss[-1], "last": orbit.curvature[-1], "median_of_second_half": half,
            "largest": orbit.curvature.max(), "median_to_limit": half / limit,
        },
    }  # fmt: skip


def plane(
    options: Multipliers, loss: LossFn, minimum: Minimum, stopping: StoppingRule, progress=None
) -> stability_diagram.Diagram:
    """What becomes of orbits near the minimum for every step size and momentum; one momentum for rules without."""
    momentum = options.rule in optimisers.MOMENTUM
    betas = np.linspace(*options.betas, options.resolution[1]) if momentum else np.array([options.beta])
    numbers = {"beta2": options.beta2, "eps": options.eps, "weight_decay": options.weight_decay}
    rule, decay = updates.named_family(options.rule, **numbers), None
    if minimum.nu is not None:
        rule = updates.frozen(rule, jnp.asarray(minimum.nu, minimum.theta.dtype))
    if options.weight_decay:
        adamw = options.rule == "adamw"
        scale = _preconditioner(options, minimum.theta, minimum.nu) if adamw else np.ones_like(minimum.theta)
        decay = options.weight_decay * scale
    threshold = np.array([_closed_form(options, minimum.curvature, beta) for beta in betas])
    return stability_diagram.diagram(
        rule, loss, minimum.theta, betas, threshold, stopping, num=options.resolution[0],
        displacement=options.displacement, decay=decay, progress=progress,
    )  # fmt: skip


def _shift(options: Multipliers) -> dict[str, float]:
    """The weight decay that the closed forms are to know of: adaptive rules have it in their curvature already."""
    adaptive = options.rule in optimisers.ADAPTIVE and options.rule != "adamw"
    return {} if adaptive else {"weight_decay": options.weight_decay}


def _closed_form(options: Multipliers, curvature: float, beta: float) -> float:
    return float(optimisers.threshold(options.rule, curvature, beta=beta, **_shift(options)))


def critical_curvature(options: Multipliers) -> float:
    """The curvature above which a minimum is unstable at the step size asked for."""
    numbers = {"beta": options.beta, **_shift(options)}
    return float(optimisers.critical_curvature(options.rule, options.step_size, **numbers))


def _thresholds(options: Multipliers, loss: LossFn, minimum: Minimum) -> dict:
    """In closed form from the curvature, and found by bisection on the multipliers of the whole map."""
    exact = _closed_form(options, minimum.curvature, options.beta)
    found = stability.threshold_of(
        minimum.rule, loss, jnp.asarray(minimum.theta), exact / 20, exact * 2, state=minimum.state
    )
    return {
        "closed_form": exact, "numerical": found.step_size, "relative_difference": abs(found.step_size / exact - 1),
        "multiplier": [found.multiplier.real, found.multiplier.imag],
    }  # fmt: skip


def along_the_minima(options: Multipliers, loss: LossFn, minimum: Minimum, num: int = 9) -> list[dict] | None:
    """Thresholds of minima (x, a/x) of the product of two scalars, numerical and from 2c (x^2 + y^2) where P is one.

    None for other losses and with weight decay, under which these are no fixed points.
    """
    product = theory.known(loss).hyperbola
    if product is None or options.weight_decay:
        return None
    rows = []
    for x in np.sqrt(product.target) * np.geomspace(1, 4, num):
        theta = np.array([x, product.target / x], minimum.theta.dtype)
        scale = _preconditioner(options, theta, minimum.nu)
        # The Hessian is 2c v v^T with v = (y, x), so the preconditioned one has the eigenvalue 2c (y^2/p1 + x^2/p2).
        curvature = 2 * product.scale * float(np.sum(theta[::-1].astype(float) ** 2 / scale))
        exact = float(optimisers.threshold(options.rule, curvature, beta=options.beta))
        found = stability.threshold_of(minimum.rule, loss, jnp.asarray(theta), exact / 20, exact * 2).step_size
        rows.append({
            "x": x, "curvature": curvature, "closed_form": exact, "numerical": found,
            "relative_difference": abs(found / exact - 1),
        })  # fmt: skip
    return rows


def _check(options: Multipliers, dtype) -> None:
    if options.rule not in optimisers.KNOWN:
        raise ValueError(
            f"--rule {options.rule} jumps at every critical point, so it has no multipliers there; choose one of "
            f"{', '.join(optimisers.KNOWN)}, or look at its orbits"
        )
    check_step_sizes(options.step_size, dtype)
    if options.every > options.num_steps:
        raise ValueError(f"--every {options.every} leaves nothing of the --num-steps {options.num_steps}; lower it")


def _check_point(options: Multipliers, loss: LossFn, dim: int, dtype) -> None:
    """Refuse a point beside a saddle: no step size is stable there, whatever the rule."""
    if not options.point:
        return
    if len(options.point) != dim:
        raise ValueError(f"--point takes the {dim} parameters of the loss, but got {len(options.point)} numbers")
    point = jnp.asarray(options.point, dtype)
    theta = stability.fixed_point(updates.gradient_descent(), loss, point, options.step_size).theta
    values = np.asarray(curvature.eigenvalues(loss, theta)) + options.weight_decay
    if values.min() < -np.sqrt(np.finfo(dtype).eps) * np.abs(values).max():
        raise ValueError(
            f"--point leads to {np.asarray(theta).tolist()}, where the loss curves down ({values.min():.3g}): no step "
            "size is stable there; give a point near a minimum"
        )


def _guess(options: Multipliers, loss: LossFn, orbit: Orbit) -> np.ndarray:
    """Where a critical point is sought."""
    if options.point:
        return np.asarray(options.point)
    known = theory.known(loss)
    if known.flattest and known.minimum is not None:
        return known.minimum
    if not np.isfinite(orbit.theta[-1]).all():
        raise ValueError("the orbit has diverged, so it leads to no minimum; give a --point, or a smaller --step-size")
    return orbit.theta[-1]


def _preconditioner(options: Multipliers, theta: np.ndarray, nu: np.ndarray | None) -> np.ndarray:
    return optimisers.preconditioner(options.rule, theta if nu is None else nu, options.eps)


def _decayed(options: Multipliers, loss: LossFn) -> LossFn:
    """The loss whose Hessian adaptive rules precondition: weight decay in the gradient is part of it."""
    if options.rule == "adamw" or options.rule not in optimisers.ADAPTIVE or not options.weight_decay:
        return loss
    return lambda theta: loss(theta) + 0.5 * options.weight_decay * jnp.sum(theta**2)


def _parts(values: np.ndarray) -> np.ndarray:
    """Real and imaginary parts of complex numbers, [..., 2]."""
    return np.stack([values.real, values.imag], axis=-1)


def dataset_of(diagram: stability_diagram.Diagram, orbit: Orbit, values: np.ndarray, reach: np.ndarray) -> xr.Dataset:
    """The plane; the orbit; the multipliers, and the edge of the numerical range of the Jacobian that has them."""
    verdicts = stability_diagram.Verdict
    meanings = {"flag_values": [int(v) for v in verdicts], "flag_meanings": " ".join(v.name.lower() for v in verdicts)}
    plane = ("step_size", "beta")
    variables = {
        "verdict": (plane, diagram.verdict, {"long_name": "what becomes of an orbit near the minimum", **meanings}),
        "updates": (plane, diagram.updates),
        "threshold": ("beta", diagram.threshold, {"long_name": "largest stable step size, closed form"}),
        "theta": (("step", "coordinate"), orbit.theta),
        "loss": ("step", orbit.loss),
        "curvature": ("step", orbit.curvature, {"long_name": "largest eigenvalue of the preconditioned Hessian"}),
        "multipliers": (("index", "part"), _parts(values)),
        "numerical_range": (("direction", "part"), _parts(reach), {"long_name": "points of its edge"}),
    }
    coords = {"step_size": diagram.step_sizes, "beta": diagram.betas, "step": orbit.steps, "part": ["real", "imag"]}
    if orbit.nu is not None:
        variables["nu"] = (("step", "coordinate"), orbit.nu, {"long_name": "second moment, bias corrected"})
    return xr.Dataset(variables, coords)
