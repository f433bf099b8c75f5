r"""Whether a loss or an update rule of one's own keeps the contract: checks that a user runs, and that our tests run.

`check_loss(loss, theta)` and `check_rule(rule, loss, theta)` try what the laboratory relies on, at a point and near it,
and say in one line what does not hold. What a loss may say is written in `losses.contract`, what a rule is in
`updates.UpdateRule`.
"""

from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdstab import ensembles, orbits
from gdstab._clocks import clock_of
from gdstab._contract import entry
from gdstab._types import LossFn, State, Theta
from gdstab._validate import as_theta
from gdstab._validate import check_loss as _is_loss
from gdstab.outcomes import StoppingRule
from gdstab.updates import UpdateRule

__all__ = [
    "BrokenContract",
    "check_loss",
    "check_rule",
]
__dir__ = __all__.copy  # nothing else is for users

_NEAR, _FAR = 1e-2, 1.0  # how far from the point the others are that are tried, in units of its size
_LANES = 5
_BLOCKS = (16, 32)
_MANY = 64  # roundings of a number that was computed in two ways


class BrokenContract(AssertionError):
    """What a loss or a rule promises does not hold."""


@entry
def check_loss(loss: LossFn, theta: Theta, *, seed: int = 0) -> None:
    r"""Raise `BrokenContract` where a loss does not keep its contract at `theta` or near it.

    That it is a real scalar in the dtype of the parameters; that two calls and a compiled one agree; that its gradient
    is finite where it is, and is that of central differences; that a batch gives what single points give; that it is
    nowhere below the `loss_floor` that it declares; that `residual` vanishes where the loss is at its floor, and
    nowhere else; that `on_lanes` is the same function.

    Parameters
    ----------
    loss
        With whatever it says of itself, see `losses.contract`.
    theta
        A point where it is finite, of the dtype it will be used with. Points at distances of a hundredth and of once
        its size are tried too.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> check_loss(lambda x: jnp.sum(x**2), jnp.ones(2))
    >>> check_loss(lambda x: jnp.sqrt(jnp.sum(x**2)) - 1, jnp.zeros(2))
    Traceback (most recent call last):
    gdstab.testing.BrokenContract: the gradient is not finite where the loss is, -1: write it without a division by ...
    """
    theta = _is_loss(loss, theta)
    plain = lambda theta: loss(theta)  # noqa: E731, PLW0108 (which can be hashed)
    compiled = jax.jit(plain)
    points = list(_points(theta, seed))
    values = [loss(point) for point in points]
    _check_value(loss, compiled, points, values)
    _check_gradient(plain, points, values)
    _check_batch(loss, plain, points, np.array(values))
    _check_floor(loss, points, values)


def _points(theta: Theta, seed: int) -> Iterator[Theta]:
    """The point, and some others at several distances."""
    flat, unravel = ravel_pytree(theta)
    rng = np.random.default_rng(seed)
    size = float(jnp.linalg.norm(flat)) or 1.0
    yield theta
    for number in range(_LANES - 1):
        step = rng.standard_normal(flat.size)
        length = (_NEAR if number % 2 else _FAR) * size / np.linalg.norm(step)
        yield unravel(flat + jnp.asarray(length * step, flat.dtype))


def _dtype(theta: Theta):
    return jnp.result_type(*jax.tree.leaves(theta))


def _close(a, b, dtype, scale: float = 0.0) -> bool:
    """Whether two arrays differ by a few roundings of their size; nan is nan."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    size = max(np.abs(np.nan_to_num(np.append(a, b), posinf=0, neginf=0)).max(initial=0), scale)
    return np.allclose(a, b, rtol=0, atol=_MANY * float(jnp.finfo(dtype).eps) * size, equal_nan=True)


def _check_value(loss, compiled, points, values) -> None:
    dtype = _dtype(points[0])
    if values[0].dtype != dtype:
        raise BrokenContract(
            f"the loss is {values[0].dtype} where the parameters are {dtype}: bring its constants to their dtype, by "
            "jnp.asarray(constant, theta.dtype)"
        )
    if not np.isfinite(values[0]):
        raise BrokenContract(f"the loss is {float(values[0])} at the point: pass one where it is finite")
    scale = float(np.abs(np.nan_to_num(np.array(values), posinf=0, neginf=0)).max())
    for point, value in zip(points, values, strict=True):
        if not np.array_equal(loss(point), value, equal_nan=True):
            raise BrokenContract("two calls at one point differ: a loss may not draw numbers or remember what it did")
        if not _close(compiled(point), value, dtype, scale):
            raise BrokenContract(
                f"compiled it is {float(compiled(point)):.6g}, uncompiled {float(value):.6g}: it may not look at the "
                "values of its arguments"
            )


def _check_gradient(loss, points, values) -> None:
    gradient = jax.jit(jax.grad(loss))
    for point, value in zip(points, values, strict=True):
        slope, _ = ravel_pytree(gradient(point))
        if np.isfinite(value) and not np.isfinite(slope).all():
            raise BrokenContract(
                f"the gradient is not finite where the loss is, {float(value):.6g}: write it without a division by "
                "zero under a jnp.where or a square root"
            )
    flat, unravel = ravel_pytree(points[0])
    direction = jnp.asarray(np.cos(np.arange(1, flat.size + 1) * 2.4), flat.dtype)
    direction = direction / jnp.linalg.norm(direction)
    size = float(jnp.linalg.norm(flat)) or 1.0
    told = float(ravel_pytree(gradient(points[0]))[0] @ direction)
    errors = []
    for step in size * float(jnp.finfo(flat.dtype).eps) ** (1 / 3) * np.array([1.0, 4.0, 16.0]):
        ahead, behind = (float(loss(unravel(flat + jnp.asarray(s, flat.dtype) * direction))) for s in (step, -step))
        slack = 16 * float(jnp.finfo(flat.dtype).eps) * (abs(ahead) + abs(behind)) / step
        errors.append((abs((ahead - behind) / (2 * step) - told) - slack) / max(abs(told), 1e-300))
    if not min(errors) <= 0.05:
        raise BrokenContract(
            f"the gradient along a direction is {told:.6g}, and differences of the loss say otherwise, by at least "
            f"{100 * min(errors):.0f} %: look at its custom derivatives, or for a kink or a jump at the point"
        )


def _check_batch(loss, plain, points, values) -> None:
    dtype, scale = _dtype(points[0]), float(np.abs(np.nan_to_num(values, posinf=0, neginf=0)).max())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    if not _close(jax.jit(jax.vmap(plain))(stacked), values, dtype, scale):
        raise BrokenContract(
            "a batch gives other values than its points one by one: do not reduce over all axes blindly"
        )
    if callable(getattr(loss, "on_lanes", None)):
        behind = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), stacked)
        beside = jax.jit(lambda theta: loss.on_lanes(theta))(behind)  # noqa: PLW0108 (which can be hashed)
        if not _close(beside, values, dtype, scale):
            raise BrokenContract("`on_lanes` gives other values than the loss: it takes the lanes on a trailing axis")


def _check_floor(loss, points, values) -> None:
    floor = float(getattr(loss, "loss_floor", -np.inf))
    eps = float(jnp.finfo(_dtype(points[0])).eps)
    size = max(abs(float(value)) for value in values if np.isfinite(value))
    lowest = min(float(value) for value in values if not np.isnan(value))
    if lowest < floor - _MANY * eps * max(size, abs(floor)):
        raise BrokenContract(
            f"the loss takes the value {lowest:.6g}, below the `loss_floor` {floor:g} that it declares: give it its "
            "infimum, or -inf"
        )
    if not callable(getattr(loss, "residual", None)) or not np.isfinite(floor):
        return
    for point, value in zip(points, values, strict=True):
        excess = float(value) - floor
        residual = max(
            (float(jnp.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(loss.residual(point))), default=0
        )
        if (residual == 0) != (excess <= 0) and not abs(excess) <= _MANY * eps * max(size, abs(floor)):
            raise BrokenContract(
                f"`residual` is {residual:.6g} where the loss is {excess:.6g} above its floor: it vanishes exactly on "
                "the global minima"
            )


@entry
def check_rule(rule: UpdateRule, loss: LossFn, theta: Theta, *, step_size: float = 1e-2) -> None:
    r"""Raise `BrokenContract` where an update rule does not keep its contract on a loss, from `theta` on.

    That the state holds arrays and keeps structure, shapes and dtypes in a step; that it begins with the parameters it
    was given; that a step is finite, the same twice, and the same compiled; that orbits side by side are those one by
    one, whatever the block of the engine; that a state without integers is one map iterated, and with them says by
    `autonomous=False` if they never fade; that the step size is read anew in every step.

    Parameters
    ----------
    loss, theta
        Where the rule is tried; the loss is checked first.
    step_size
        With which a few steps stay finite.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> check_rule(gradient_descent(), lambda x: jnp.sum(x**2), jnp.ones(2))
    >>> half = UpdateRule(lambda t, _: t, lambda loss, t, s: (t - s * jax.grad(loss)(t)).astype("float16"), lambda t: t)
    >>> check_rule(half, lambda x: jnp.sum(x**2), jnp.ones(2))
    Traceback (most recent call last):
    gdstab.testing.BrokenContract: a step makes float16[2] of float...[2] in the state: keep structure, shapes and ...
    """
    check_loss(loss, theta)
    theta = as_theta(theta)
    eta = jnp.asarray(step_size, _dtype(theta))
    state = rule.init(theta, eta)
    _check_state(rule, loss, theta, state, eta)
    _check_steps(rule, loss, state, eta)
    _check_clock(rule, loss, state)
    _check_orbits(rule, loss, theta, eta)


def _told(leaf) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _check_state(rule, loss, theta, state: State, eta) -> None:
    odd = [leaf for leaf in jax.tree.leaves(state) if not eqx.is_array_like(leaf)]
    if odd:
        raise BrokenContract(f"the state holds {odd[0]!r}, which is no array: close over it, or make it a static field")
    begun, given = rule.theta(state), jax.tree.map(jnp.asarray, theta)
    if not eqx.tree_equal(jax.tree.map(jnp.asarray, begun), given):
        raise BrokenContract(
            "`theta(init(theta, step_size))` is not theta: the first state stands at the parameters given"
        )
    before = jax.eval_shape(lambda: state)
    after = jax.eval_shape(lambda state: rule.step(loss, state, eta), state)
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise BrokenContract(
            f"a step makes {jax.tree.structure(after)} of the state {jax.tree.structure(before)}: keep its structure"
        )
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise BrokenContract(
                f"a step makes {_told(new)} of {_told(old)} in the state: keep structure, shapes and dtypes, by "
                "jnp.asarray(step_size, leaf.dtype) and the like"
            )


def _check_steps(rule, loss, state: State, eta) -> None:
    step = jax.jit(lambda state, eta: rule.step(loss, state, eta))
    once, eager, again = step(state, eta), rule.step(loss, state, eta), rule.step(loss, state, eta)
    if not eqx.tree_equal(eager, again):  # uncompiled, for what is drawn while compiling stays as it was drawn
        raise BrokenContract(
            "two steps from one state differ: a rule may not remember what it did, and draws numbers from a key in its "
            "state, as `updates.with_noise` does"
        )
    flat, plain = (ravel_pytree(rule.theta(moved))[0] for moved in (once, eager))
    if not np.isfinite(flat).all():
        raise BrokenContract(f"a step of size {float(eta):g} is not finite: divide by nothing that can be zero")
    if not _close(flat, plain, flat.dtype):
        raise BrokenContract(
            "a compiled step differs from an uncompiled one: a step may not look at the values it is given"
        )
    begun = ravel_pytree(rule.theta(state))[0]
    twice = ravel_pytree(rule.theta(step(state, 2 * eta)))[0]
    if not np.array_equal(flat, begun) and np.array_equal(twice, flat):
        raise BrokenContract("a step of twice the size is the same step: use the `step_size` that `step` is given")


def _check_clock(rule, loss, state: State) -> None:
    """Whether what counts steps changes the map for good, in a rule that says it does not."""
    integers = [leaf for leaf in jax.tree.leaves(state) if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    if not rule.autonomous or not integers:
        return
    try:
        clock_of(rule, loss, state)
    except ValueError as error:
        raise BrokenContract(f"the rule calls itself autonomous, and is not: {error}") from error


def _check_orbits(rule, loss, theta, eta) -> None:
    points = list(_points(theta, 1))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *points)
    stopping = StoppingRule(loss_tol=None, max_steps=3)
    found = [ensembles.run(rule, loss, stacked, float(eta), stopping, block=block).theta for block in _BLOCKS]
    for number, point in enumerate(points):
        begun = rule.init(point, eta, number) if rule.numbered else rule.init(point, eta)
        alone = ravel_pytree(orbits.settle_from(rule, loss, begun, eta, stopping).theta)[0]
        for block, ends in zip(_BLOCKS, found, strict=True):
            beside = ravel_pytree(jax.tree.map(lambda leaf, number=number: leaf[number], ends))[0]
            if not _close(beside, alone, alone.dtype, float(np.abs(np.nan_to_num(alone)).max())):
                raise BrokenContract(
                    f"an orbit among others, in a block of {block}, ends elsewhere than alone: lanes may know nothing "
                    "of each other"
                )
