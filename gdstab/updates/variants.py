"""Rules made from rules: with the second moment held, and with a hyperparameter that differs between orbits."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab._clocks import clock_of
from gdstab._types import State, Theta
from gdstab.updates.optimisers import begin_optax, evaluated, step_optax
from gdstab.updates.rules import Applied, UpdateRule

_SECOND_MOMENTS = ("nu", "nu_max", "sum_of_squares")
"""What optax calls them: Adam and RMSprop, AMSGrad, Adagrad."""


def from_family(family: Callable) -> UpdateRule:
    """An optimiser with one more number per orbit, such as its momentum: parameters are `(theta, number)`.

    `family(step_size, number) -> optax.GradientTransformation` may branch on neither. The number stays as it is and
    travels with the parameters, so that an ensemble sweeps it as it sweeps initial points, in one compilation; the loss
    is a function of `(theta, number)` too, and has no gradient in the second.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> rule = from_family(lambda s, beta: optax.sgd(s, momentum=beta))
    >>> state = rule.init((jnp.array([2.0]), jnp.array(0.5)), 0.25)
    >>> for _ in range(2):
    ...     state = rule.step(lambda pair: jnp.sum(pair[0] ** 2), state, 0.25)
    >>> rule.theta(state)[0].tolist()  # 2 -> 1 -> 1 - 0.25 * (2 + 0.5 * 4)
    [0.0]
    """
    return UpdateRule(Applied(_begin_family, family), Applied(_step_family, family), _theta_and_number)


def _begin_family(family, pair, step_size):
    theta, number = pair
    return *begin_optax(lambda size: family(size, number), True, theta, step_size), number


def _step_family(family, loss, state, step_size):
    theta, memory, number = state
    moved = step_optax(
        lambda size: family(size, number), lambda point: loss((point, number)), (theta, memory), step_size
    )
    return *moved, number


def _theta_and_number(state):
    return evaluated(state[:2]), state[2]


def frozen(rule: UpdateRule, nu: Theta) -> UpdateRule:
    r"""An adaptive rule with its second moment held at `nu`, and its bias correction at its limit.

    What is left is a smooth map on $(\theta, \text{momentum})$: for Adam
    $m \mapsto \beta_1 m + (1 - \beta_1)\nabla L$, $\theta \mapsto \theta - \eta m / (\sqrt\nu + \epsilon)$, that is
    heavy ball in the coordinates $\sqrt{P}\,\theta$ with $P = \operatorname{diag}(\sqrt\nu + \epsilon)$ (Cohen et al.
    2022, arXiv:2207.14484). The true fixed point has $\nu = 0$, where the map has no derivative. Integer entries
    of the state (step counters) stand where no step changes a bias correction any more; neither they nor $\nu$ are part
    of the new state, which any tool takes as it takes every state.

    Parameters
    ----------
    rule
        Adam, AdamW, AMSGrad, RMSprop, Adagrad or a chain with one of them, from `from_optax` or `from_family`.
    nu
        Positive numbers, one for all parameters or a tree like `theta`: `second_moment` reads one off an orbit.

    Raises
    ------
    ValueError
        If the rule is no fixed map (a schedule), `nu` is not positive and finite, or, in `init`, if the rule's state
        holds no second moment or one of another shape, or a phase (accumulated gradients).

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> from gdstab.updates import from_optax
    >>> rule = frozen(from_optax(lambda s: optax.adam(s, b1=0.0, eps=0.0)), 4.0)
    >>> state = rule.init(jnp.array([2.0]), 0.25)
    >>> rule.theta(rule.step(lambda theta: jnp.sum(theta**2), state, 0.25)).tolist()  # 2 - 0.25 * 4 / sqrt(4)
    [1.5]
    """
    if not rule.autonomous:
        raise ValueError(
            "expected a rule that is one map, got one with a schedule; freeze the optimiser without its schedule"
        )
    for leaf in jax.tree.leaves(nu):
        if not (np.isfinite(leaf) & (np.asarray(leaf) > 0)).all():
            raise ValueError(
                f"nu: expected positive finite numbers, got {np.min(leaf)} to {np.max(leaf)}; at zero the map has no "
                "derivative: take the second moment of an orbit that has not come to rest"
            )
    nu = jax.tree.map(jnp.asarray, nu)
    nu = jax.tree.map(jnp.asarray, nu)
    return UpdateRule(Applied(_begin_frozen, rule, nu), Applied(_step_frozen, rule, nu), rule.theta, True)


def second_moment(state: State) -> Theta:
    """The second moment in the state of an adaptive rule: a tree like `theta`, as it stands, without bias correction.

    Raises
    ------
    ValueError
        If the state holds none.
    """
    return _read_moment(state, reversed(_SECOND_MOMENTS))  # AMSGrad divides by its largest one


def _has_moment(node) -> bool:
    return any(name in _SECOND_MOMENTS for name in getattr(node, "_fields", ()))


def _read_moment(state, names):
    for node in jax.tree.leaves(state, is_leaf=_has_moment):
        for name in names if _has_moment(node) else ():
            if name in node._fields:
                return getattr(node, name)
    raise ValueError(
        f"expected the state of a rule with a second moment (a field {', '.join(_SECOND_MOMENTS)}), got none; rules "
        "without one need no freezing"
    )


def _with_moment(state, value, largest=None):
    """The state with `value` in the place of every second moment, and `largest` in that of AMSGrad's largest one."""

    def replace(node):
        names = [name for name in node._fields if name in _SECOND_MOMENTS] if _has_moment(node) else []
        return node._replace(**{name: largest if name == "nu_max" else value for name in names}) if names else node

    return jax.tree.map(replace, state, is_leaf=_has_moment)


def _begin_frozen(rule, nu, theta, step_size):
    state = rule.init(theta, step_size)
    if (phases := clock_of(rule, None, state).period) > 1:
        raise ValueError(
            f"expected a rule whose every step is one map, got one that comes round after {phases} steps only (an "
            "integer of its state is a phase); freeze the optimiser without it, and gather gradients in no step"
        )
    _shaped(nu, _read_moment(state, _SECOND_MOMENTS))  # refused here, on the host
    return eqx.filter(_with_moment(state, None), eqx.is_inexact_array)


def _step_frozen(rule, nu, loss, moving, step_size):
    template = rule.init(rule.theta(moving), step_size)
    nu = _shaped(nu, _read_moment(template, _SECOND_MOMENTS))
    counters = eqx.filter(_with_moment(template, None), eqx.is_inexact_array, inverse=True)
    counters = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.iinfo(leaf.dtype).max // 2), counters)
    state = eqx.combine(moving, counters)

    def step(moment):
        return rule.step(loss, _with_moment(state, moment, nu), step_size)

    # Optimisers divide by the second moment *after* its update, which is affine: start where the update ends at nu.
    after, slope = jax.jvp(lambda x: _read_moment(step(x), _SECOND_MOMENTS), (nu,), (jax.tree.map(jnp.ones_like, nu),))
    before = jax.tree.map(lambda want, got, by: want + (want - got) / by, nu, after, slope)
    return eqx.filter(_with_moment(step(before), None), eqx.is_inexact_array)


def _shaped(nu, like):
    """`nu` as the tree of arrays that the optimiser keeps."""
    if jax.tree.structure(nu).num_leaves == 1 and jnp.ndim(jax.tree.leaves(nu)[0]) == 0:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jax.tree.leaves(nu)[0].astype(leaf.dtype)), like)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (nu, like)]
    if jax.tree.structure(nu) != jax.tree.structure(like) or shapes[0] != shapes[1]:
        raise ValueError(
            f"nu: expected one number or a tree like the parameters, {shapes[1]}, got {shapes[0]}; take it from a "
            "state of this rule, by `second_moment`"
        )
    return jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), nu, like)
