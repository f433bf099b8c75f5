r"""Gradient flow $\dot\theta = -\nabla L(\theta)$: the limit of descent for small steps; time is $\eta$ times steps."""

from collections.abc import Callable
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from gdstab._types import LossFn, Theta
from gdstab._validate import check_loss, check_positive, is_concrete


class Flow(eqx.Module):
    """Where one orbit of gradient flow went; `save_at` gives the leading axis of `observed` and `times`."""

    theta: Theta
    """The last point: at the time asked for, or where `until` held first."""
    time: Float[Array, ""]
    """The time of that point."""
    settled: Bool[Array, ""]
    """Whether `until` ended it."""
    successful: Bool[Array, ""]
    """False where `max_steps` ran out or the solver gave up; `time` says how far it came."""
    num_steps: Int[Array, ""]
    """Steps of the solver, rejected ones included."""
    observed: Theta | None
    """What was observed at `save_at`; at times after the orbit had settled, or was given up, the last point's."""


def gradient_flow(
    loss: LossFn,
    theta0: Theta,
    time: ArrayLike,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    save_at: Float[Array | np.ndarray, " times"] | None = None,
    observe: Callable | None = None,
    until: Callable[[Theta], Bool[Array, ""]] | None = None,
    solver: diffrax.AbstractSolver | None = None,
    max_steps: int = 100_000,
) -> Flow:
    r"""Follow $\dot\theta = -\nabla L(\theta)$ from `theta0` for a time; for one point, can be jitted and vmapped.

    Under `vmap` the batch runs until its slowest member is done. `theta0` is any pytree of real arrays of one dtype,
    which is that of the answer.

    Parameters
    ----------
    time
        How far to go.
    rtol, atol
        Of the step size controller; near $10^{-8}$ one step may err by that much relative to $\theta$.
    save_at
        Times from 0 to `time`, ascending, at which `observe(theta)` is kept (by default the parameters).
    until
        Stop early where `until(theta)` is true, for instance where the gradient is small; asked after every step. Ask
        for no gradient below about $100 \lambda_{\max}$ `atol`: the errors of an explicit solver keep it above that.
    solver
        Of diffrax; `Tsit5()` by default, whose steps are bounded by about $3.3 / \lambda_{\max}$ near minima. Take
        `Kvaerno5()`, which is implicit, where the Hessian is stiff.
    max_steps
        Steps of the solver at the most.

    Raises
    ------
    ValueError
        If the loss is no real scalar, or `time` or a tolerance is not positive.

    Examples
    --------
    >>> flow = gradient_flow(lambda x: 0.5 * jnp.sum(x**2), jnp.array([2.0]), 1.0)
    >>> bool(abs(flow.theta[0] - 2 / jnp.e) < 1e-7)
    True
    """
    check_loss(loss, theta0)
    for name, value in (("rtol", rtol), ("atol", atol)):
        check_positive(value, name)
    if is_concrete(time) and not float(time) > 0:
        raise ValueError(f"time: expected a positive number, got {time}; flow runs forward")
    if save_at is not None and is_concrete(time) and is_concrete(save_at):
        _check_times(np.asarray(save_at), float(time))
    dtype = jnp.result_type(*jax.tree.leaves(theta0))
    time = jnp.asarray(time, dtype)
    saves = [diffrax.SubSaveAt(t1=True)]
    if save_at is not None:
        times = jnp.clip(jnp.asarray(save_at, dtype), 0, time)  # the last of `geomspace` may be off by a rounding
        saves.append(diffrax.SubSaveAt(ts=times, fn=lambda _, theta, __: theta if observe is None else observe(theta)))
    # Products at full precision, and diffrax's own arithmetic under the usual promotion.
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(_velocity), diffrax.Tsit5() if solver is None else solver,
            t0=jnp.zeros((), dtype), t1=time, dt0=None, y0=jax.tree.map(jnp.asarray, theta0), args=loss,
            saveat=diffrax.SaveAt(subs=saves), stepsize_controller=diffrax.PIDController(rtol, atol),
            event=None if until is None else diffrax.Event(lambda _, theta, *__, **___: until(theta)),
            max_steps=max_steps, throw=False,
        )  # fmt: skip
    last = jax.tree.map(lambda leaf: leaf[0], found.ys[0])
    observed = None
    if save_at is not None:
        after = jnp.isinf(found.ts[1])  # diffrax fills with inf what lies after the end
        observed = jax.tree.map(partial(_hold, after), found.ys[1], last if observe is None else observe(last))
    settled = jnp.asarray(found.result == diffrax.RESULTS.event_occurred)
    successful = settled | (found.result == diffrax.RESULTS.successful)
    return Flow(last, found.ts[0][0], settled, successful, jnp.asarray(found.stats["num_steps"]), observed)


def _velocity(_, theta, loss):
    return jax.tree.map(jnp.negative, jax.grad(loss)(theta))


def _hold(after, path, end):
    """Fill what comes after the end with the last value."""
    return jnp.where(after.reshape((-1,) + (1,) * end.ndim), end[None], path)


def _check_times(times, time):
    outside = ~((times >= 0) & (times <= time * (1 + 1e-6)))
    if times.ndim != 1 or outside.any() or (np.diff(times) < 0).any():
        raise ValueError(
            f"save_at: expected a vector of times from 0 to {time:g}, ascending, got shape {times.shape} with "
            f"{int(outside.sum())} outside; sort and clip them"
        )
