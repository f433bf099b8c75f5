"""How a flow ends, and in words what stopped it."""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int8

from gdstab import curvature
from gdstab._compiling import jit
from gdstab._numerics import sum_squares
from gdstab._types import LossFn, Theta

STABILITY_LIMIT = 3.3
r"""Steps of an explicit solver (Tsit5) in units of $1/\lambda_{\max}$: where they are near that, the flow is stiff."""
JUMP = 1e-3
"""A flow that moves by this share of 1 + its norm within one rounding of the time has escaped: time cannot go on."""


class FlowStatus(enum.IntEnum):
    """Why a flow stopped; the value is what the device arrays hold (int8)."""

    FINISHED = 0  # the time asked for has come
    SETTLED = 1  # `until` held
    ESCAPED = 2  # left the ball of radius `escape_radius`, or is so fast that time cannot advance: a finite-time escape
    STALLED = 3  # `max_steps` are used up: raise them, loosen `rtol`, take an implicit solver; or the flow rides a kink
    NONFINITE = 4  # the gradient is not finite at the last point, or the solver's shortest step is rejected there


def judge(
    theta: Theta, gradient: Theta, time: Float[Array, ""], *,
    settled: Bool[Array, ""], escaped: Bool[Array, ""], finished: Bool[Array, ""], blocked: Bool[Array, ""],
) -> Int8[Array, ""]:  # fmt: skip
    """The status of a flow from what its solver says at the last point; `blocked` if no step was short enough."""
    speed, norm = jnp.sqrt(sum_squares(gradient)), jnp.sqrt(sum_squares(theta))
    rounding = jnp.finfo(time.dtype).eps * jnp.abs(time)
    escaped = escaped | (~(finished | settled) & (speed * rounding.astype(speed.dtype) > JUMP * (1 + norm)))
    status = jnp.where(blocked | ~jnp.isfinite(speed + norm), FlowStatus.NONFINITE, FlowStatus.STALLED)
    for holds, name in ((finished, "FINISHED"), (settled, "SETTLED"), (escaped, "ESCAPED")):
        status = jnp.where(holds & jnp.isfinite(norm), FlowStatus[name], status)
    return status.astype(jnp.int8)


def diagnose(loss: LossFn, flow) -> str:
    r"""Say in a sentence why one flow of `gradient_flow` stopped, by its time, norm and number of steps.

    For `STALLED` the mean step is held against $1/\lambda_{\max}$ of the Hessian at the last point, which costs some
    Hessian-vector products: near 3.3 an explicit solver is bound by stability, and the flow is stiff; far below, by
    accuracy, as at a kink of a non-smooth loss. For `ESCAPED` the curvature along the gradient tells a flow that grows
    ever faster from one that slows down, and from constant steps that are too long.

    Examples
    --------
    >>> from gdstab.flow import gradient_flow
    >>> cubic = lambda x: -x[0] ** 3 / 3
    >>> diagnose(cubic, gradient_flow(cubic, jnp.ones(1), 2.0))
    'ESCAPED at time 1 after 241 steps, norm 1e+06: ever faster; ask for a shorter time, or raise `escape_radius`'
    """
    status = FlowStatus(int(flow.status))
    norm, time, steps = float(jnp.sqrt(sum_squares(flow.theta))), float(flow.time), int(flow.num_steps)
    advice = {
        FlowStatus.FINISHED: "the time asked for has come",
        FlowStatus.SETTLED: "`until` held",
        FlowStatus.NONFINITE: "the gradient is not finite there or right behind; start inside the loss's domain",
    }
    ask = {FlowStatus.STALLED: _stall, FlowStatus.ESCAPED: _escape}.get(status)
    said = advice[status] if ask is None else ask(loss, flow, time / max(steps, 1))
    return f"{status.name} at time {time:.3g} after {steps} steps, norm {norm:.2g}: {said}"


@jit
def _sharpness(loss, theta):
    return curvature.sharpness(loss, theta)


def _stall(loss, flow, step):
    sharpness = float(_sharpness(loss, flow.theta))
    ratio = step * sharpness
    means = f"mean step {step:.2g} = {ratio:.2g}/lambda_max"
    if ratio > STABILITY_LIMIT / 5:
        return f"{means}, stiff: take `solver=diffrax.Kvaerno5()` or raise `max_steps`"
    return (
        f"{means}, bound by accuracy: raise `max_steps`, loosen `rtol` and `atol` or lengthen `step`, or look for a "
        "kink of the loss"
    )


def _escape(loss, flow, step):
    if int(flow.num_steps) == 0:
        return "it starts there, outside `escape_radius`; raise that"
    gradient = jax.grad(loss)(flow.theta)
    turned = curvature.hvp(loss, flow.theta, gradient)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(turned), strict=True)
    bend = float(sum(jnp.sum(g * h) for g, h in pairs) / sum_squares(gradient))
    if step * bend > 1:
        return f"steps of {step:.2g} are too long for curvature {bend:.2g}; shorten `step` to below 1/lambda_max"
    if bend > 0:
        return "it slows down, but has left `escape_radius`; raise that"
    return "ever faster; ask for a shorter time, or raise `escape_radius`"
