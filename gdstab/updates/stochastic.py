r"""Rules that draw random numbers: mini-batches, noise on labels, Langevin dynamics; and averages to judge them by.

A stochastic rule carries a key in its state, as integers. Each starting point of an ensemble makes its own, from the
rule's key and the point's number: answers do not depend on blocks, tiles, devices or on where a run was interrupted,
two lanes that start alike draw different numbers, and all step sizes see the same ones. Such a rule is no map, so what
asks for fixed points, multipliers, cycles or exponents refuses it; orbits, basins and verdicts are had as ever.

A verdict at a single point of a noisy orbit says little: `averaged(rule, decay)` is judged where the mean of the
last parameters stands.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from gdstab._types import LossFn, State, Theta
from gdstab._validate import check_count, check_positive
from gdstab.updates.rules import Applied, UpdateRule, gradient_descent


def with_noise(
    rule: UpdateRule, key: Array, loss_of: Callable | None = None, kick: Callable | None = None
) -> UpdateRule:
    r"""A rule that sees another loss in every step, or whose parameters are kicked after it, or both.

    Parameters
    ----------
    rule
        The rule without noise, such as `gradient_descent()` or momentum, whose memory is kept from step to step.
    key
        One of JAX's keys, such as `jax.random.key(0)`.
    loss_of
        `loss_of(loss, key) -> loss`: the loss that this step descends.
    kick
        `kick(theta, step_size, key) -> theta`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> def scaled(loss, key):
    ...     return lambda x: loss(x) * jax.random.uniform(key, dtype=x.dtype)
    >>> noisy = with_noise(gradient_descent(), jax.random.key(0), scaled)
    >>> state = noisy.init(jnp.ones(1), 0.1)
    >>> moved = [noisy.theta(noisy.step(jnp.sum, state, 0.1)).item() for _ in range(2)]
    >>> moved[0] == moved[1], 0.9 < moved[0] < 1.0
    (True, True)
    """
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise ValueError(f"key: expected one such as jax.random.key(0), got {key!r}; make one")
    numbers = tuple(int(word) for word in jax.random.key_data(key).ravel())
    return UpdateRule(
        Applied(_begin, rule, numbers), Applied(_step, rule, loss_of, kick), Applied(_theta, rule), False, True
    )


def sgd(key: Array, batch: int, *, rule: UpdateRule | None = None) -> UpdateRule:
    r"""Stochastic gradient descent: every step sees `batch` samples, drawn anew without replacement.

    Parameters
    ----------
    batch
        Samples per step.
    rule
        What is done with the gradient; by default gradient descent.

    Raises
    ------
    ValueError
        In a step, if the loss has no `on_samples(indices)` with its number `num_samples`, as `losses.NetworkRisk` has,
        or fewer samples than a batch.
    """
    batch = check_count(batch, "batch")
    return with_noise(rule or gradient_descent(), key, loss_of=Applied(_on_batch, batch))


def label_noise(key: Array, scale: float, *, rule: UpdateRule | None = None) -> UpdateRule:
    r"""Gradient descent on the square loss with normal noise of deviation `scale` on the targets, anew in every step.

    Of a loss with `residual` $r(\theta)$ and $L = c \|r\|^2$ it descends $c \|r - \epsilon\|^2$ with
    $\epsilon \sim N(0, \text{scale}^2)$. Near minima it drifts towards flat ones (Damian, Ma and Lee 2021).

    Raises
    ------
    ValueError
        In a step, if the loss has no residual.
    """
    return with_noise(rule or gradient_descent(), key, loss_of=Applied(_noisy_labels, check_positive(scale, "scale")))


def langevin(key: Array, temperature: float) -> UpdateRule:
    r"""Unadjusted Langevin dynamics, $\theta \mapsto \theta - \eta \nabla L(\theta) + \sqrt{2 \eta T}\, \xi$.

    On a quadratic of curvature h its stationary variance is $T / (h (1 - \eta h / 2))$.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> rule = langevin(jax.random.key(0), 0.1)
    >>> rule.autonomous, rule.numbered
    (False, True)
    """
    return with_noise(gradient_descent(), key, kick=Applied(_thermal, check_positive(temperature, "temperature")))


def averaged(rule: UpdateRule, decay: float) -> UpdateRule:
    r"""The rule as it is, judged by the mean $m \mapsto d\,m + (1 - d)\,\theta$ of the parameters it visits.

    `theta` of it is that mean, so verdicts, labels and results look at where a noisy orbit stands on average.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates.rules import gradient_descent
    >>> slow = averaged(gradient_descent(), 0.5)
    >>> slow.theta(slow.step(jnp.sum, slow.init(jnp.ones(1), 1.0), 1.0)).tolist()
    [0.5]
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay: expected a number from 0 up to 1, 1 excluded, got {decay}; 0.99 is usual")
    return UpdateRule(
        Applied(_begin_mean, rule), Applied(_step_mean, rule, decay), _second, rule.autonomous, rule.numbered
    )


def _begin(rule, key: tuple, theta: Theta, step_size, number=0) -> State:
    own = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32)), number)
    return rule.init(theta, step_size), jax.random.key_data(own), jnp.zeros((), jnp.uint32)


def _step(rule, loss_of, kick, loss: LossFn, state: State, step_size) -> State:
    inner, words, count = state
    now, then = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(words), count))
    inner = rule.step(loss if loss_of is None else loss_of(loss, now), inner, step_size)
    if kick is not None:
        theta = rule.theta(inner)
        change = jax.tree.map(jnp.subtract, kick(theta, step_size, then), theta)
        inner = _moved(rule, inner, change)
    return inner, words, count + jnp.uint32(1)


def _moved(rule, state: State, change: Theta) -> State:
    """The state with its parameters moved by `change`: they are the leaves that `theta` hands out."""
    theta = jax.tree.leaves(rule.theta(state))
    own = {id(leaf): moved for leaf, moved in zip(theta, jax.tree.leaves(change), strict=True)}
    if not own.keys() <= {id(leaf) for leaf in jax.tree.leaves(state)}:
        raise ValueError("expected a rule whose parameters are leaves of its state, got averages; kick the rule inside")
    return jax.tree.map(lambda leaf: leaf + own[id(leaf)] if id(leaf) in own else leaf, state)


def _theta(rule, state: State) -> Theta:
    return rule.theta(state[0])


def _on_batch(batch: int, loss: Any, key):
    samples = getattr(loss, "num_samples", None)
    if samples is None or not callable(getattr(loss, "on_samples", None)):
        raise ValueError(
            f"expected a loss of samples, with num_samples and on_samples(indices), got {type(loss).__name__}; "
            "losses.NetworkRisk is one"
        )
    if batch > samples:
        raise ValueError(f"batch: expected at most the {samples} samples of the loss, got {batch}; lower it")
    return loss.on_samples(jax.random.choice(key, samples, (batch,), replace=False))


def _noisy_labels(scale: float, loss: Any, key):
    if not callable(getattr(loss, "residual", None)):
        raise ValueError(f"expected a loss with a residual, got {type(loss).__name__}; use `with_noise`")

    def factor(theta):
        """c, beside the point: at a minimum it is zero over zero."""
        beside = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) + jnp.asarray(0.7, leaf.dtype), theta)
        return loss(beside) / jnp.sum(ravel_pytree(loss.residual(beside))[0] ** 2)

    def noisy(theta):
        residual = ravel_pytree(loss.residual(theta))[0]
        noise = jnp.asarray(scale, residual.dtype) * jax.random.normal(key, residual.shape, residual.dtype)
        return loss(theta) - 2 * factor(theta) * jnp.sum(residual * noise)  # and a number, with L = c r^2

    return noisy


def _thermal(temperature: float, theta: Theta, step_size, key) -> Theta:
    flat, unravel = ravel_pytree(theta)
    size = jnp.sqrt(jnp.asarray(2 * temperature, flat.dtype) * jnp.asarray(step_size, flat.dtype))
    return unravel(flat + size * jax.random.normal(key, flat.shape, flat.dtype))


def _begin_mean(rule, theta: Theta, step_size, *number) -> State:
    return rule.init(theta, step_size, *number), theta


def _step_mean(rule, decay: float, loss: LossFn, state: State, step_size) -> State:
    inner, mean = state
    inner = rule.step(loss, inner, step_size)

    def mix(mean, leaf):
        weight = jnp.asarray(decay, leaf.dtype)
        return weight * mean + (1 - weight) * leaf

    return inner, jax.tree.map(mix, mean, rule.theta(inner))


def _second(state: State) -> Theta:
    return state[1]
