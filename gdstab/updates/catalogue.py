"""Optimisers by name, for those who choose on a command line or sweep a hyperparameter."""

import functools
import math
from typing import Any, NamedTuple

import optax

from gdstab.updates.optimisers import from_optax
from gdstab.updates.rules import UpdateRule, gradient_descent
from gdstab.updates.variants import from_family


class _Numbers(NamedTuple):
    beta: Any  # a number, or traced where every orbit brings its own
    beta2: float
    eps: float
    weight_decay: float


_COUPLED = {  # weight decay is added to the gradient first
    "descent": lambda s, _: optax.sgd(s),
    "heavy-ball": lambda s, n: optax.sgd(s, momentum=n.beta),
    "nesterov": lambda s, n: optax.sgd(s, momentum=n.beta, nesterov=True),
    "rmsprop": lambda s, n: optax.rmsprop(s, decay=n.beta2, eps=n.eps, eps_in_sqrt=False),
    "adam": lambda s, n: optax.adam(s, b1=n.beta, b2=n.beta2, eps=n.eps),
    "adagrad": lambda s, n: optax.adagrad(s, eps=n.eps),
    "sign": lambda s, _: optax.sign_sgd(s),
    "normalised": lambda s, _: optax.chain(optax.normalize_by_update_norm(), optax.sgd(s)),
}
_DECOUPLED = {
    "adamw": lambda s, n: optax.adamw(s, b1=n.beta, b2=n.beta2, eps=n.eps, weight_decay=n.weight_decay),
    "lion": lambda s, n: optax.lion(s, b1=n.beta, b2=n.beta2, weight_decay=n.weight_decay),
}
NAMES = ("descent", "heavy-ball", "nesterov", "rmsprop", "adam", "adamw", "adagrad", "lion", "sign", "normalised")
"""What `named` knows."""


@functools.lru_cache(maxsize=1024)
def named(
    name: str, *, beta: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> UpdateRule:
    r"""An optimiser by its name; the same object for the same arguments, so that it compiles once.

    `descent` is `gradient_descent()`, the others are those of optax: `heavy-ball` and `nesterov` with momentum `beta`;
    `rmsprop` with decay `beta2` of the second moment $\nu$, `adam` and `adamw` with `beta` and `beta2`, all three
    divided by $\sqrt\nu + \epsilon$; `adagrad` by $\sqrt{\nu + \epsilon}$; `lion`; `sign` descent; `normalised`
    descent, by the norm of the gradient. What a rule does not know it ignores.

    Parameters
    ----------
    weight_decay
        $w\theta$ is added to the gradient before anything else, which is descent on $L + \frac w2 \|\theta\|^2$. Only
        `adamw` and `lion` decay apart from the gradient: $\theta \mapsto \theta - \eta (u + w \theta)$.

    Raises
    ------
    ValueError
        If there is no rule of that name, a decay is outside [0, 1), or `eps` or `weight_decay` is negative.

    Examples
    --------
    >>> named("adam", beta=0.8) is named("adam", beta=0.8)
    True
    """
    numbers = _Numbers(beta, beta2, eps, weight_decay)
    _check(name, numbers)
    if name == "descent" and weight_decay == 0:
        return gradient_descent()
    return from_optax(lambda step_size: _transform(name, step_size, numbers))


@functools.lru_cache(maxsize=1024)
def named_family(name: str, *, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> UpdateRule:
    """As `named`, on parameters `(theta, beta)`: every orbit brings its own `beta`. See `from_family`."""
    numbers = _Numbers(0.0, beta2, eps, weight_decay)
    _check(name, numbers)
    return from_family(lambda step_size, beta: _transform(name, step_size, numbers._replace(beta=beta)))


def _transform(name: str, step_size, numbers: _Numbers) -> optax.GradientTransformation:
    if name in _DECOUPLED:
        return _DECOUPLED[name](step_size, numbers)
    base = _COUPLED[name](step_size, numbers)
    return optax.chain(optax.add_decayed_weights(numbers.weight_decay), base) if numbers.weight_decay else base


def _check(name: str, numbers: _Numbers) -> None:
    if name not in NAMES:
        raise ValueError(f"expected one of {', '.join(NAMES)}, got {name!r}; for another optimiser use `from_optax`")
    for what in ("beta", "beta2"):
        if not 0 <= (value := getattr(numbers, what)) < 1:
            raise ValueError(f"{what}: expected a decay from 0 up to 1, 1 excluded, got {value}; 0.9 is usual")
    for what in ("eps", "weight_decay"):
        if not (math.isfinite(value := getattr(numbers, what)) and value >= 0):
            raise ValueError(f"{what}: expected a finite number of at least 0, got {value}; pass 0 to do without")
