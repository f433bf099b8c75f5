"""Hysteresis: every step size begun where the last one ended, going up and then down again."""

import dataclasses
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import magnitude
from gdstab._types import LossFn
from gdstab._validate import check_count, check_step_sizes
from gdstab.bifurcation._lanes import Walk, check_lanes, check_observe, chunk_size, escape
from gdstab.ensembles import map_points
from gdstab.orbits import shifted
from gdstab.updates import UpdateRule


@recorded(
    {"gap": ("step_size", "start"), "escaped_up": ("step_size", "start"), "escaped_down": ("step_size", "start"),
     "up": ("step_size", "start", "kept"), "down": ("step_size", "start", "kept")},
    coords={"step_size": "step_sizes"}, attrs=("run_seconds",),
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class Hysteresis:
    """What was observed at each step size on the way up and on the way down, both in the order of `step_sizes`."""

    step_sizes: Float[np.ndarray, " steps"]
    up: Float[np.ndarray, "steps starts kept"]
    """NaN where an orbit escaped at this step size; so is `down`."""
    down: Float[np.ndarray, "steps starts kept"]
    escaped_up: Bool[np.ndarray, "steps starts"]
    escaped_down: Bool[np.ndarray, "steps starts"]
    run_seconds: float

    @property
    def gap(self) -> Float[np.ndarray, "steps starts"]:
        """How far apart the observations of both ways are: the larger of the distances of their minima and of their
        maxima; NaN where an orbit escaped on either.

        On one and the same cycle it is at rounding; on one chaotic attractor it falls with the number of observations.
        """
        low = np.abs(self.up.min(axis=2) - self.down.min(axis=2))
        return np.maximum(low, np.abs(self.up.max(axis=2) - self.down.max(axis=2)))


@entry(host=True)
def hysteresis(
    rule: UpdateRule,
    loss: LossFn,
    step_sizes,
    starts,
    *,
    settle: int,
    kept: int,
    observe: Callable | None = None,
    escape_radius: float | None = None,
    nudge: float = 1e-6,
) -> Hysteresis:
    r"""Sweep the step size up and down again, each step size begun with the state that the last one ended in.

    Where attractors coexist the orbit stays on its own as long as that exists, and the two ways differ. An orbit that
    escapes is marked, and begins anew from its start at the next step size.

    Parameters
    ----------
    step_sizes
        At least two, increasing; the orbits go up through them, turn at the last one, and come down.
    settle, kept
        Updates at each step size before it is observed, and updates observed.
    nudge
        Before each step size `nudge` $(r + |\theta_j|)$ is added to every parameter, for the i-th of n starts
        (1 + i / n) times as much; $r$ is the power of ten nearest to the largest parameter of all starts (1 if they are
        0). Without, orbits that settled on a fixed point to the last bit would sit there when it has long become
        unstable, and would be one orbit ever after. Past a bifurcation both ways still differ a little, for as long as
        `settle` updates do not lead away from there.
    rule, loss, starts, observe, escape_radius
        As in `orbit_diagram`.

    Raises
    ------
    ValueError
        If the step sizes do not increase, `settle` or `kept` is not a positive integer, `nudge` is negative or not
        finite, and as `orbit_diagram`.

    Examples
    --------
    Descent with the gradient $x (1 + 2 x^2) / (1 + x^4)$: the fixed point 0 is stable up to 2, and an orbit of period 2
    around it from $\sqrt 5 - 1 = 1.236$ on.

    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: 0.5 * jnp.arctan(x**2) + 0.5 * jnp.log(1 + x**4)
    >>> sizes = jnp.linspace(1.1, 2.1, 21)
    >>> found = hysteresis(gradient_descent(), loss, sizes, jnp.array([0.1]), settle=1000, kept=4)
    >>> (found.gap[[2, 8], 0] > 0.1).tolist()  # at 1.2 and at 1.5
    [False, True]
    """
    begin = time.perf_counter()
    starts, num_starts, dtype = check_lanes(rule, loss, starts, escape_radius)
    sizes = np.atleast_1d(check_step_sizes(step_sizes, dtype))
    if len(sizes) < 2 or not (np.diff(sizes) > 0).all():
        raise ValueError(f"expected two increasing step sizes or more, got {np.asarray(step_sizes)}; sort them")
    settle, kept = check_count(settle, "settle"), check_count(kept, "kept")
    if not (np.isfinite(nudge) and nudge >= 0):
        raise ValueError(f"nudge: expected a finite number of at least 0, got {nudge}; 0 moves nothing")
    walk = Walk(rule, loss, escape(starts, escape_radius))
    unit = magnitude(*(np.abs(leaf).max() for leaf in jax.tree.leaves(starts)))
    sweep = _Sweep(walk, check_observe(observe, starts), settle, kept, jnp.asarray(sizes), unit)
    nudges = (nudge * (1 + np.arange(num_starts) / num_starts)).astype(dtype)
    (escaped_up, up), (escaped_down, down) = map_points(sweep, (starts, nudges), chunk=chunk_size(rule, starts))
    return Hysteresis(
        step_sizes=sizes, up=up.swapaxes(0, 1), down=down.swapaxes(0, 1)[::-1], escaped_up=escaped_up.T,
        escaped_down=escaped_down.T[::-1], run_seconds=time.perf_counter() - begin,
    )  # fmt: skip


class _Sweep(eqx.Module):
    """One start, up and down."""

    walk: Walk
    observe: Callable = eqx.field(static=True)
    settle: int
    kept: int
    step_sizes: jax.Array
    unit: float

    def __call__(self, pair):
        theta, nudge = pair
        rule = self.walk.rule

        def change(leaf):
            return nudge.astype(leaf.dtype) * (self.unit + jnp.abs(leaf))

        def at_one(state, step_size):
            state = shifted(rule, state, jax.tree.map(change, rule.theta(state)))
            state = self.walk.advance(state, step_size, self.settle)
            state, values = self.walk.observe(state, step_size, self.kept, self.observe)
            escaped = ~self.walk.inside(state)
            fresh = rule.init(theta, step_size)
            state = jax.tree.map(lambda new, old: jnp.where(escaped, new, old), fresh, state)
            return state, (escaped, jnp.where(escaped, jnp.nan, values))

        state = rule.init(theta, self.step_sizes[0])
        state, up = lax.scan(at_one, state, self.step_sizes)
        _, down = lax.scan(at_one, state, self.step_sizes[::-1])
        return up, down
