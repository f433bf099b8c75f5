"""The contract of losses and rules: what keeps it passes, what does not is told in one line; wrong arguments too."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdstab as gd
from gdstab import losses, updates
from gdstab.testing import BrokenContract, check_loss, check_rule
from gdstab.updates import UpdateRule


def bowl(theta):
    return jnp.sum(theta**2)


LOSSES = {
    "scalar": (losses.ScalarProduct(), (2,)),
    "deep": (losses.ScalarProduct(depth=3), (3,)),
    "vector": (losses.VectorProduct(dim=2), (4,)),
    "regularised": (losses.RegularisedProduct(decay=0.1), (2,)),
    "himmelblau": (losses.Himmelblau(), (2,)),
    "well": (losses.DoubleWell(), (2,)),
    "valley": (losses.Rosenbrock(), (3,)),
    "saddle": (losses.Quadratic(np.diag([1.0, -2.0])), (2,)),
    "worst case": (losses.WorstCase(), (3,)),
    "relu": (losses.ShallowReLU(2), (7,)),
}
COSTLY = ("deep", "regularised", "himmelblau", "valley", "worst case", "relu")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in LOSSES]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_of_the_catalogue_keep_it(name, dtype):
    loss, shape = LOSSES[name]
    if name == "worst case" and dtype == "float32":
        pytest.skip("its hills need double precision, as it says")
    check_loss(loss, jnp.asarray(np.random.default_rng(3).uniform(0.3, 1.2, shape), dtype))


@pytest.mark.slow
def test_networks_keep_it():
    inputs, targets = np.eye(2), np.array([[1.0, 0.5], [0.2, 2.0]])
    layers = tuple(jnp.eye(2) * size for size in (0.8, 1.1))
    check_loss(losses.LinearNetwork(inputs, targets), layers)
    model = eqx.nn.MLP(2, 2, 3, 1, activation=jnp.tanh, key=jax.random.key(0))
    risk = losses.NetworkRisk(model, inputs, targets, loss="mse")
    check_loss(risk, risk.theta0)
    check_rule(gd.gradient_descent(), risk, risk.theta0)


CALLS = itertools.count()


class Off(eqx.Module):
    """A quadratic that says something false of itself."""

    loss_floor: float = 0.0
    shift: float = 0.0

    def __call__(self, theta):
        return jnp.sum(theta**2) - self.shift


class Wrong(Off):
    def residual(self, theta):
        return theta[:1] * 0


class Lanes(Off):
    def on_lanes(self, theta):
        return jnp.sum(theta, axis=0) ** 2


@jax.custom_jvp
def steep(x):
    return jnp.sum(x**2)


steep.defjvp(lambda primals, tangents: (steep(*primals), 3 * jnp.sum(primals[0] * tangents[0])))


@pytest.mark.parametrize(
    ("loss", "theta", "words"),
    [
        (lambda t: jnp.sum(t**2).astype("float64"), np.ones(2, "float32"), "float64 where the parameters are float32"),
        (lambda t: jnp.sum(t) * np.nan, np.ones(2), "nan at the point: pass one where it is finite"),
        (lambda t: next(CALLS) * jnp.sum(t), np.ones(2), "two calls at one point differ"),
        (lambda t: jnp.sum(t) if isinstance(t, jax.core.Tracer) else 2 * jnp.sum(t), np.ones(2), "compiled it is"),
        (lambda t: jnp.sqrt(jnp.sum(t**2)), np.zeros(2), "the gradient is not finite where the loss is, 0"),
        (steep, np.ones(2), "differences of the loss say otherwise, by at least 33 %"),
        (Off(shift=5.0), np.ones(2), "below the `loss_floor` 0 that it declares"),
        (Wrong(), np.ones(2), "`residual` is 0 where the loss is 2 above its floor"),
        (Lanes(), np.ones(2), "`on_lanes` gives other values than the loss"),
    ],
)
def test_losses_that_do_not(loss, theta, words):
    with pytest.raises(BrokenContract, match=words.replace("(", r"\(")) as told:
        check_loss(loss, jnp.asarray(theta))
    assert "\n" not in str(told.value)


SLOW_RULES = ("nesterov", "rmsprop", "adam", "adamw", "adagrad", "lion", "sign", "normalised")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_RULES else name for name in updates.NAMES]
)
def test_rules_of_the_catalogue_keep_it(name):
    check_rule(updates.named(name), bowl, jnp.ones(2))


def begin(theta, step_size):
    del step_size
    return theta


def own(step, *, init=begin, theta=lambda state: state, autonomous=True):
    return UpdateRule(init, step, theta, autonomous)


def descend(loss, theta, step_size):
    return theta - step_size * jax.grad(loss)(theta)


def count(loss, state, step_size):
    theta, steps = state
    return descend(loss, theta, step_size / (1 + steps % 2).astype(theta.dtype)), steps + 1


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (own(descend, init=lambda t, _: (t, "none"), theta=lambda s: s[0]), "'none', which is no array"),
        (own(descend, init=lambda t, _: 2 * t), r"`theta\(init\(theta, step_size\)\)` is not theta"),
        (own(lambda _, t, s: (t, s)), "keep its structure"),
        (own(lambda _, t, s: jnp.append(t, s)), r"a step makes float64\[3\] of float64\[2\]"),
        (own(lambda loss, t, s: descend(loss, t, s).astype("float32")), r"a step makes float32\[2\] of float64\[2\]"),
        (own(lambda _, t, s: t / (s - s)), "a step of size 0.01 is not finite"),
        (own(lambda loss, t, _: descend(loss, t, 0.1)), "a step of twice the size is the same step"),
        (own(lambda _, t, s: t - s if isinstance(t, jax.core.Tracer) else t), "compiled step differs"),
        (
            own(count, init=lambda t, _: (t, jnp.zeros((), jnp.int32)), theta=lambda s: s[0]),
            None,  # a round of two steps is one map iterated
        ),
        (
            own(lambda loss, s, e: (descend(loss, s[0], e * jnp.sin(s[1].astype(float))), s[1] + 1),
                init=lambda t, _: (t, jnp.ones((), jnp.int32)), theta=lambda s: s[0]),
            "calls itself autonomous, and is not",
        ),
    ],
)  # fmt: skip
def test_rules_that_do_not(rule, words):
    if words is None:
        check_rule(rule, bowl, jnp.ones(2))
        return
    with pytest.raises(BrokenContract, match=words) as told:
        check_rule(rule, bowl, jnp.ones(2))
    assert "\n" not in str(told.value)


STOP = gd.StoppingRule()
DESCENT = gd.gradient_descent()
POINTS = np.ones((4, 2))
ENTRIES = {
    "ensembles.run": gd.run,
    "orbits.settle": gd.settle,
    "orbits.rollout": lambda rule, loss, start, eta, _: gd.rollout(rule, loss, start, eta, 3),
    "orbits.find_cycle": lambda rule, loss, start, eta, _: gd.orbits.find_cycle(rule, loss, start, eta),
    "boundaries.critical_step": lambda rule, loss, start, _, stop: gd.boundaries.critical_step(
        rule, loss, start, low=0.1, high=1.0, stopping=stop
    ),
    "bifurcation.orbit_diagram": lambda rule, loss, start, eta, _: gd.bifurcation.orbit_diagram(rule, loss, eta, start),
    "stability.multipliers": lambda rule, loss, start, eta, _: gd.stability.multipliers(rule, loss, start, eta),
    "lyapunov.largest": lambda rule, loss, start, eta, _: gd.lyapunov.largest(rule, loss, start, eta, 100),
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({0: bowl, 1: DESCENT}, "`rule` must be an UpdateRule.*but got the function bowl; the rule comes first"),
        ({0: gd.gradient_descent}, r"`rule` must be.*gradient_descent; call it: gradient_descent\(...\)"),
        ({0: optax.adam}, r"`rule` must be.*the function adam; wrap it: from_optax\(optax.adam\)"),
        ({0: optax.adam(1e-3)}, r"`rule` must be.*wrap the function that builds it, as from_optax\(optax.adam\)"),
        ({1: POINTS, 2: bowl}, r"`loss` must be a function of one theta, but got an array of shape \(4, 2\)"),
        ({1: losses.Himmelblau}, r"`loss` must be.*the class Himmelblau; make one: Himmelblau\(...\)"),
        ({2: bowl}, r"`\w+` must be where to start, but got the function bowl"),
        ({4: 100}, r"`stopping` must be a StoppingRule, but got 100; write StoppingRule\(max_steps=100\)"),
        ({4: gd.StoppingRule}, r"`stopping` must be.*the class StoppingRule; make one: StoppingRule\(\)"),
    ],
)
def test_a_wrong_argument_is_named(name, change, words):
    given = [DESCENT, bowl, POINTS, 0.1, STOP]
    if set(change) == {4} and name not in ("ensembles.run", "orbits.settle", "boundaries.critical_step"):
        pytest.skip("it takes no stopping rule")
    for place, value in change.items():
        given[place] = value
    with pytest.raises(ValueError, match=name.replace(".", r"\.") + ": " + words) as told:
        ENTRIES[name](*given)
    assert "\n" not in str(told.value)
