r"""Gradient flow $\dot\theta = -\nabla L(\theta)$: the limit of descent for small steps; time is $\eta$ times steps."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Int8

from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import sum_squares
from gdstab._types import LossFn, Scalar, Theta
from gdstab._validate import as_theta, check_loss, check_one_dtype, check_positive, is_concrete
from gdstab.flow.method import Method
from gdstab.flow.status import FlowStatus, judge

_solve = inspect.unwrap(diffrax.diffeqsolve)
"""Without the compilation of its own, which would ask for a hash of the loss, and hold it."""


@recorded({"time": (), "theta": (), "status": (), "num_steps": (), "observed": "save"}, codes={"status": FlowStatus})
class Flow(eqx.Module):
    """Where one orbit of gradient flow went; `save_at` gives the leading axis of `observed`."""

    theta: Theta
    """The last point: at the time asked for, or where the flow stopped first."""
    time: Float[Array | np.ndarray, "*lanes"]
    """The time of that point."""
    status: Int8[Array | np.ndarray, "*lanes"]
    """Why it stopped there, see `FlowStatus`; `diagnose` says it in words."""
    num_steps: Int[Array | np.ndarray, "*lanes"]
    """Steps of the solver, rejected ones included."""
    observed: Theta | None
    """What was observed at `save_at`; at times after the flow had stopped, the last point's."""
    interpolant: diffrax.DenseInterpolation | None = None
    """What `at` evaluates; None unless `dense` was asked for."""

    @property
    def settled(self) -> Bool[Array | np.ndarray, "*lanes"]:
        """Whether `until` ended it."""
        return self.status == FlowStatus.SETTLED

    @property
    def successful(self) -> Bool[Array | np.ndarray, "*lanes"]:
        """Whether it came to the time asked for, or `until` ended it."""
        return (self.status == FlowStatus.FINISHED) | self.settled

    def at(self, times: ArrayLike | Sequence[float]) -> Theta:
        """The parameters at any times, in front of whose axes stand those of `times`; after the end, the last point.

        By the solver's interpolant, which needs `dense=True`. For one flow: `jax.vmap(lambda flow: flow.at(times))`
        takes a batch.

        Raises
        ------
        ValueError
            If the interpolant was not kept.

        Examples
        --------
        >>> flow = gradient_flow(lambda x: 0.5 * jnp.sum(x**2), jnp.ones(1), 2.0, dense=True, max_steps=100)
        >>> bool(jnp.abs(flow.at([0.5, 1.0])[:, 0] - jnp.exp(jnp.array([-0.5, -1.0]))).max() < 1e-7)
        True
        """
        if self.interpolant is None:
            raise ValueError("expected a flow whose interpolant was kept; call gradient_flow with dense=True")
        times = jnp.clip(jnp.asarray(times, self.time.dtype), 0, self.time)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            values = jax.vmap(self.interpolant.evaluate)(times.reshape(-1))
        return jax.tree.map(lambda leaf: leaf.reshape(*times.shape, *leaf.shape[1:]), values)


class _Settled(eqx.Module):
    loss: LossFn
    grad_tol: float

    def __call__(self, theta: Theta) -> Bool[Array, ""]:
        square = sum_squares(jax.grad(self.loss)(theta))
        return square <= jnp.asarray(self.grad_tol, square.dtype) ** 2


def settled(loss: LossFn, grad_tol: float) -> Callable[[Theta], Bool[Array, ""]]:
    r"""The steady-state event for `until`: whether $\|\nabla L(\theta)\|_2 \le$ `grad_tol`; saddles count too.

    An explicit solver's errors keep the gradient above about $100 \lambda_{\max}$ `atol`: ask for no less.

    Examples
    --------
    >>> loss = lambda x: 0.5 * jnp.sum(x**2)
    >>> flow = gradient_flow(loss, jnp.array([2.0]), 100.0, until=settled(loss, 1e-3))
    >>> FlowStatus(int(flow.status)).name, bool(flow.time < 10)
    ('SETTLED', True)
    """
    return _Settled(loss, check_positive(grad_tol, "grad_tol"))


@entry
def gradient_flow(
    loss: LossFn,
    theta0: Theta,
    time: ArrayLike,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    save_at: Float[Array | np.ndarray, " times"] | None = None,
    observe: Callable | None = None,
    dense: bool = False,
    until: Callable[[Theta], Bool[Array, ""]] | None = None,
    step: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    max_steps: int = 100_000,
    escape_radius: float = 1e6,
) -> Flow:
    r"""Follow $\dot\theta = -\nabla L(\theta)$ from `theta0` for a time; for one point, can be jitted and vmapped.

    For many points see `gradient_flows`: under `vmap` the batch runs until its slowest member is done. `theta0` is any
    pytree of real arrays of one dtype, which is that of the answer.

    Where the loss has kinks (ReLU, max pooling), the field is what `jax.grad` gives there, as for descent. It jumps
    across a kink, and the solver shortens its steps until the jump's error passes `atol`: crossing costs some rejected
    steps. A flow that is pushed onto a kink from both sides slides along it in tiny steps, and ends `STALLED`. The loss
    of a network on many data has thousands of kinks along the way: give `step`.

    Parameters
    ----------
    time
        How far to go.
    rtol, atol
        Of the step size controller; near $10^{-8}$ one step may err by that much relative to $\theta$. In single
        precision, ask for no less than about 1e-5 and 1e-6.
    save_at
        Times from 0 to `time`, ascending, at which `observe(theta)` is kept (by default the parameters).
    dense
        Whether to keep the interpolant, so that `Flow.at` gives the parameters at any time. Memory holds all stages of
        `max_steps` steps: lower that.
    until
        Stop early where `until(theta)` is true, for instance `settled(loss, grad_tol)`; asked after every step.
    step
        Constant steps of at most this length instead of tolerances, by default of `AdamsBashforth2`, one gradient each:
        below $1 / \lambda_{\max}$. A kink that is crossed then costs nothing, and an error of the first order in the
        step, without bias: what is left of all of them is seen by halving the step.
    solver
        Of diffrax; to tolerances `Tsit5()` by default, whose steps are bounded by about $3.3 / \lambda_{\max}$ near
        minima. Take `Kvaerno5()`, which is implicit, where the Hessian is stiff: every step then solves with a dense
        Jacobian of all parameters, so that it is for small problems.
    max_steps
        Steps of the solver at the most.
    escape_radius
        Stop where $\|\theta\|_2$ exceeds this: a flow can escape in finite time if its loss is unbounded below.

    Raises
    ------
    ValueError
        If the loss is no real scalar, leaves of `theta0` differ in dtype, or `time`, a tolerance, the step or the
        radius is not positive and finite. For the limit ask for a long time, with `until`.

    Examples
    --------
    >>> flow = gradient_flow(lambda x: 0.5 * jnp.sum(x**2), jnp.array([2.0]), 1.0)
    >>> bool(abs(flow.theta[0] - 2 / jnp.e) < 1e-7)
    True
    """
    theta0 = check_loss(loss, theta0)
    check_one_dtype(theta0)
    dtype = jnp.result_type(*jax.tree.leaves(theta0))
    method = Method.of(dtype, rtol, atol, escape_radius, step, solver, max_steps)
    _check_times(time, save_at)
    time, theta0 = jnp.asarray(time, dtype), jax.tree.map(jnp.asarray, theta0)
    times = None if save_at is None else jnp.asarray(save_at, dtype)
    zero = jnp.zeros((), dtype)
    return follow(loss, theta0, zero, time, method, times=times, observe=observe, until=until, dense=dense)


@jit
def follow(
    loss: LossFn, theta: Theta, start: Scalar, stop: Scalar, method: Method, *,
    times: Float[Array, " times"] | None = None, observe: Callable | None = None, until: Callable | None = None,
    dense: bool = False,
) -> Flow:  # fmt: skip
    """As `gradient_flow`, from one time to another, without its checks; a flow that cannot start takes no steps."""
    observe = observe or _identity
    outside = _Outside(method.escape_radius)(theta)
    speed = jnp.sqrt(sum_squares(jax.grad(loss)(theta)))
    starts = jnp.isfinite(speed) & ~outside
    first = method.first_step(stop - start, jnp.sqrt(sum_squares(theta)), speed)
    end = jnp.where(starts, stop, start)
    saves = [diffrax.SubSaveAt(t1=True)]
    if times is not None:
        times = jnp.clip(times, start, end)  # the last of `geomspace` may be off by a rounding
        saves.append(diffrax.SubSaveAt(ts=times, fn=_Seen(observe)))
    events = [_Seen(_Outside(method.escape_radius))] + ([] if until is None else [_Seen(until)])
    # Products at full precision, and diffrax's own arithmetic under the usual promotion.
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        found = _solve(
            diffrax.ODETerm(_velocity), method.solver,
            t0=start, t1=end, dt0=first, y0=theta, args=loss,
            saveat=diffrax.SaveAt(subs=saves, dense=dense), stepsize_controller=method.controller(stop - start),
            event=diffrax.Event(events), max_steps=method.max_steps, throw=False,
        )  # fmt: skip
        last = jax.tree.map(lambda leaf: leaf[0], found.ys[0])
        status = judge(
            last, jax.grad(loss)(last), found.ts[0][0],
            settled=found.event_mask[-1] if until is not None else jnp.asarray(False),
            escaped=outside | found.event_mask[0],
            finished=starts & (found.result == diffrax.RESULTS.successful),
            blocked=jnp.asarray(found.result == diffrax.RESULTS.dt_min_reached),
        )  # fmt: skip
    observed = None
    if times is not None:
        after = jnp.isinf(found.ts[1])  # diffrax fills with inf what lies after the end
        observed = jax.tree.map(partial(_hold, after), found.ys[1], observe(last))
    return Flow(last, found.ts[0][0], status, jnp.asarray(found.stats["num_steps"]), observed, found.interpolation)


@entry
def gradient_flows(
    loss: LossFn, starts: Theta, time: ArrayLike, *, map_points: Callable | None = None, **settings
) -> Flow:
    """As `gradient_flow`, from many starts with one leading axis, which every field of the answer has too.

    Parameters
    ----------
    map_points
        `map_points(fn, points) -> values`. `ensembles.map_points` uses all cores, each of which follows one flow after
        another; by default one `vmap`, in which all wait for the slowest, but which suits an accelerator.
    settings
        Of `gradient_flow`.

    Examples
    --------
    >>> starts = jnp.array([[1.0], [2.0]])
    >>> flows = gradient_flows(lambda x: jnp.sum(x**2), starts, 1.0)
    >>> bool(abs(flows.theta - starts * jnp.exp(-2.0)).max() < 1e-7)
    True
    """
    _check_times(time, settings.get("save_at"))
    starts = as_theta(starts)
    one = _From(loss, np.asarray(time, jnp.result_type(*jax.tree.leaves(starts))), tuple(sorted(settings.items())))
    return map_points(one, starts) if map_points else _vmapped(one, starts)


class _From(eqx.Module):
    """Flow from one start, on a CPU by itself: batched solves took there up to six times the time of single ones."""

    loss: LossFn
    time: np.ndarray
    settings: tuple[tuple[str, Any], ...]

    @property
    def points_together(self) -> int | None:
        """How many flows `ensembles.map_points` is to run together."""
        return 1 if jax.default_backend() == "cpu" else None

    def __call__(self, theta: Theta) -> Flow:
        return gradient_flow(self.loss, theta, self.time, **dict(self.settings))


@jit
def _vmapped(one, starts):
    return jax.vmap(one)(starts)


def _velocity(_, theta, loss):
    return jax.tree.map(jnp.negative, jax.grad(loss)(theta))


class _Seen(eqx.Module):
    """A function of the parameters, as diffrax calls those that it saves or stops by; equal ones compile once."""

    fn: Callable

    def __call__(self, _, theta, *__, **___):
        return self.fn(theta)


class _Outside(eqx.Module):
    radius: ArrayLike

    def __call__(self, theta: Theta) -> Bool[Array, ""]:
        square = sum_squares(theta)
        return square > jnp.asarray(self.radius, square.dtype) ** 2


def _identity(theta):
    return theta


def _hold(after, path, end):
    """Fill what comes after the end with the last value."""
    return jnp.where(after.reshape((-1,) + (1,) * end.ndim), end[None], path)


def _check_times(time, save_at):
    """Refuse times that run backwards or have no end, and others than those on the way; what is traced passes."""
    if not is_concrete(time):
        return
    time = check_positive(time, "time")
    if not is_concrete(save_at):
        return
    times = np.asarray(save_at)
    outside = ~((times >= 0) & (times <= time * (1 + 1e-6)))
    if times.ndim != 1 or outside.any() or (np.diff(times) < 0).any():
        raise ValueError(
            f"save_at: expected a vector of times from 0 to {time:g}, ascending, got shape {times.shape} with "
            f"{int(outside.sum())} outside; sort and clip them"
        )
