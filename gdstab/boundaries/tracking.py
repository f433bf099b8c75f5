"""Orbits that stay on the edge between two outcomes, and the edge states that they approach."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Int, Int16

from gdstab import ensembles
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn
from gdstab._validate import check_count, check_loss, check_positive, check_step_sizes
from gdstab.boundaries.edges import Edges, bisect_edge, check_segments
from gdstab.boundaries.verdicts import BATCH, Classifier
from gdstab.losses.pullback import Pullback
from gdstab.orbits import rollout
from gdstab.outcomes import StoppingRule
from gdstab.updates import UpdateRule

_STRIDE = 8
"""Updates that both ends of a bracket make before one looks how far apart they are."""
_PARTS = 16
"""Brackets are cut in so many parts: few points, and a quarter of the calls that halving takes."""


@recorded(
    {"width": ("time", "edge"), "theta": ("time", "edge", "coordinate"), "apart": "edge", "bisections": "edge",
     "classes": ("edge", "side"), "found": "edge", "lost": "edge"}
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class EdgeOrbits:
    """Orbits on an edge; the leading axis of `theta` and `width` is time, from 0 to the number of updates."""

    theta: Float[np.ndarray, "times edges dim"]
    """The middle of the bracket; nan where there is no edge, or none any more."""
    width: Float[np.ndarray, "times edges"]
    """Distance between the two orbits that bracket it (in the state of the rule)."""
    apart: Float[np.ndarray, " edges"]
    """The width at which a bracket is made short again: how far the orbit may be off."""
    bisections: Int[np.ndarray, " edges"]
    """How often that was done, the first time included."""
    classes: Int16[np.ndarray, "edges 2"]
    """How the two sides end."""
    found: Bool[np.ndarray, " edges"]
    """Whether the ends that were given end differently."""
    lost: Int[np.ndarray, " edges"]
    """The time at which both sides were seen to end alike; -1 if never."""

    def settled(self, max_period: int = 8, tol: float | None = None) -> Int[np.ndarray, " edges"]:
        r"""Period of the edge state that each orbit ends on: 1 for a fixed point, 0 if it has not come back to itself.

        It has after $p$ updates if both $\|\theta_T - \theta_{T-p}\|$ and $\|\theta_{T-1} - \theta_{T-1-p}\|$ are at
        most `tol`, by default four times `apart`.
        """
        period = np.zeros(self.found.shape, int)
        tol = 4 * self.apart if tol is None else check_positive(tol, "tol")
        for p in range(min(check_count(max_period, "max_period"), len(self.theta) - 2), 0, -1):
            gap = np.linalg.norm(self.theta[-2:] - self.theta[-2 - p : len(self.theta) - p], axis=2)
            period[(gap <= tol).all(axis=0)] = p
        return period


@entry(host=True)
def track_edge(
    rule: UpdateRule,
    loss: LossFn,
    step_size,
    a,
    b,
    *,
    stopping: StoppingRule,
    num_steps: int = 200,
    apart: float | None = None,
    label: Callable | None = None,
    batch: int = BATCH,
    devices=None,
) -> EdgeOrbits:
    r"""Follow the orbits that stay on the edge between two outcomes (Skufca, Yorke and Eckhardt, PRL 96:174101, 2006).

    A bracket of two points that end differently is bisected to the resolution of floats. Both are updated side by side;
    they separate along the unstable direction of the edge, and once those of any bracket are more than `apart` from
    each other, all brackets are bisected again. The orbit so followed approaches the edge state, an attractor within
    the edge: often a saddle or a cycle of saddles, which no orbit reaches by going forward. It is an orbit up to jumps
    of at most `apart` at each bisection.

    Parameters
    ----------
    rule, loss, step_size, stopping, label, batch, devices
        As in `boundaries.Classifier`; the rule must be autonomous. Brackets are bisected in the state of the rule,
        momentum and all, which must consist of floats.
    a, b
        Ends of the first brackets, `[edges, dim]`, which end differently.
    num_steps
        Updates to follow.
    apart
        By default $\sqrt\varepsilon\,(\|a\| + \|b - a\|)$ with the machine epsilon of the dtype.

    Raises
    ------
    ValueError
        As `bisect_edge`; if the rule is not autonomous or its state holds integers.

    Examples
    --------
    >>> from gdstab.updates import gradient_descent
    >>> wells = lambda theta: (theta[0] ** 2 - 1) ** 2 / 4 + theta[1] ** 2
    >>> orbit = track_edge(
    ...     gradient_descent(), wells, 0.2, [[-0.7, 0.5]], [[0.4, 0.5]], stopping=StoppingRule(loss_tol=1e-6),
    ...     label=lambda theta: (theta[0] > 0).astype(int), num_steps=60, apart=1e-3,
    ... )
    >>> orbit.settled().tolist(), bool(abs(orbit.theta[-1]).max() < 2e-3)
    ([1], True)
    """
    if not rule.autonomous:
        raise ValueError("expected an autonomous rule, got one whose map changes with time, and its edges with it")
    a, b = check_segments(a, b)
    step_size = check_step_sizes(step_size, a.dtype)
    num_steps = check_count(num_steps, "num_steps", least=0)
    check_loss(loss, jnp.asarray(a[0]))
    limit = np.sqrt(np.finfo(a.dtype).eps) * (np.linalg.norm(a, axis=1) + np.linalg.norm(b - a, axis=1))
    limit = limit if apart is None else np.full(len(a), check_positive(apart, "apart"), a.dtype)
    system = _phase_space(rule, loss, step_size, a)
    classify = Classifier(
        system.rule, system.loss, step_size, stopping,
        label=None if label is None else Pullback(label, system.read), batch=batch, devices=devices,
    )  # fmt: skip
    edges = bisect_edge(
        classify, *(np.asarray(ensembles.map_points(system.begin, points)) for points in (a, b)), parts=_PARTS
    )
    path = _Path(edges, limit)
    while path.length <= num_steps and path.on.any():
        path.extend(_ahead(system, step_size, path.ends), num_steps)
        path.shorten(classify)
    middle = np.asarray(path.middle)
    theta = ensembles.map_points(system.read, middle.reshape(-1, middle.shape[-1]))
    return EdgeOrbits(
        theta=np.asarray(theta).reshape(*middle.shape[:2], -1), width=np.asarray(path.width), apart=limit,
        bisections=path.bisections, classes=np.stack([edges.class_a, edges.class_b], axis=1), found=edges.found,
        lost=path.lost,
    )  # fmt: skip


class _Path:
    """Brackets as they move, and what is kept of them."""

    def __init__(self, edges: Edges, limit: np.ndarray):
        self.ends, self.limit = np.stack([edges.a, edges.b]), limit
        self.on = edges.found.copy()
        self.bisections = edges.found.astype(int)
        self.lost = np.full(self.on.shape, -1)
        self.middle, self.width = [], []
        self._keep(self.ends[:, :, None])

    @property
    def length(self) -> int:
        """Number of times kept."""
        return len(self.middle)

    def extend(self, ahead: np.ndarray, num_steps: int) -> None:
        """Take the coming states `[2, edges, times, dim]` up to the first at which a bracket is too long."""
        gap = np.linalg.norm(ahead[0] - ahead[1], axis=-1)
        far = (~(gap <= self.limit[:, None]) & self.on[:, None]).any(axis=0)
        stop = min(int(np.argmax(far)) + 1 if far.any() else len(far), num_steps + 1 - self.length)
        self._keep(ahead[:, :, :stop])
        self.ends = ahead[:, :, stop - 1].copy()

    def shorten(self, classify: Callable) -> None:
        """Bisect all brackets once one is too long; those whose ends agree are lost."""
        if (self.width[-1] <= self.limit)[self.on].all():
            return
        far = np.flatnonzero(self.on)
        finite = np.isfinite(self.ends[:, far]).all(axis=(0, 2))
        lost = far[~finite]
        if finite.any():
            short = bisect_edge(classify, *self.ends[:, far[finite]], parts=_PARTS)
            self.ends[:, far[finite]] = short.a, short.b
            self.bisections[far[finite][short.found]] += 1
            lost = np.concatenate([lost, far[finite][~short.found]])
        self.lost[lost], self.on[lost] = self.length - 1, False
        del self.middle[-1], self.width[-1]
        self._keep(self.ends[:, :, None])

    def _keep(self, states: np.ndarray) -> None:
        middle = np.where(self.on[:, None, None], states[0] + (states[1] - states[0]) / 2, np.nan)
        self.middle += list(np.moveaxis(middle, 1, 0))
        self.width += list(np.where(self.on[:, None], np.linalg.norm(states[0] - states[1], axis=-1), np.nan).T)


class _System(NamedTuple):
    """A rule and a loss on flat states, and the ways there and back."""

    rule: UpdateRule
    loss: LossFn
    begin: Callable  # theta -> state
    read: Callable  # state -> theta


class _Ahead(eqx.Module):
    """The next states of one state."""

    loss: LossFn
    step_size: Any
    rule: UpdateRule = eqx.field(static=True)

    def __call__(self, state):
        return rollout(self.rule, _STRIDE, observe=_same)(self.loss, state, self.step_size)[1]


def _ahead(system: _System, step_size, ends: np.ndarray) -> np.ndarray:
    """Both ends of all brackets over the next updates, `[2, edges, times, dim]`."""
    fn = _Ahead(system.loss, jnp.asarray(step_size), system.rule)
    return np.asarray(ensembles.map_points(fn, ends.reshape(-1, ends.shape[-1]))).reshape(
        *ends.shape[:2], _STRIDE, ends.shape[-1]
    )


def _phase_space(rule: UpdateRule, loss: LossFn, step_size, points: np.ndarray) -> _System:
    """The rule on flat vectors; itself where the state is the point."""
    theta, step_size = jax.ShapeDtypeStruct(points.shape[1:], points.dtype), jnp.asarray(step_size)
    shapes = jax.eval_shape(rule.init, theta, step_size)
    wrong = [leaf.dtype for leaf in jax.tree.leaves(shapes) if leaf.dtype != points.dtype]
    if wrong:
        raise ValueError(
            f"expected a rule whose state holds {points.dtype} only, got one with {wrong[0]}; states with counters "
            "cannot be bisected"
        )
    begin = functools.partial(_begin, rule, step_size)
    if isinstance(shapes, jax.ShapeDtypeStruct) and shapes.shape == theta.shape:
        return _System(rule, loss, begin, rule.theta)
    flat = functools.partial(_step_flat, rule, points.shape[1], str(points.dtype))
    read = functools.partial(_read_flat, rule, points.shape[1], str(points.dtype))
    flat_rule = UpdateRule(_start, flat, _same, True)
    return _System(flat_rule, Pullback(loss, read), functools.partial(_begin_flat, rule, step_size), read)


def _begin(rule, step_size, theta):
    return rule.init(theta, step_size)


def _begin_flat(rule, step_size, theta):
    return ravel_pytree(rule.init(theta, step_size))[0]


def _unravel(rule: UpdateRule, dim: int, dtype: str) -> Callable:
    """From flat states of the rule to states."""
    return ravel_pytree(rule.init(jnp.zeros(dim, dtype), jnp.ones((), dtype)))[1]


def _step_flat(rule, dim, dtype, loss, flat, step_size):
    """A step of the rule on flat states."""

    def of_theta(theta):
        return loss(ravel_pytree(rule.init(theta, step_size))[0])

    return ravel_pytree(rule.step(of_theta, _unravel(rule, dim, dtype)(flat), step_size))[0]


def _read_flat(rule, dim, dtype, flat):
    return rule.theta(_unravel(rule, dim, dtype)(flat))


def _start(state, step_size):
    del step_size  # the state is there already
    return state


def _same(state):
    return state
