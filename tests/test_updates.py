import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab.losses import LinearNetwork, ScalarProduct
from gdstab.updates import from_optax, gradient_descent
from tests.conftest import assert_close

decay = optax.cosine_decay_schedule(1.0, 100)
FACTORIES = {
    "sgd": optax.sgd,
    "momentum": lambda s: optax.sgd(s, momentum=0.9),
    "nesterov": lambda s: optax.sgd(s, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "amsgrad": optax.amsgrad,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "lion": lambda s: optax.lion(s, weight_decay=0.0),  # decay moves critical points
    "sign_sgd": optax.sign_sgd,
    "clipped": lambda s: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(s)),
    "polyak": lambda s: optax.polyak_sgd(max_learning_rate=s),
    "linesearch": lambda s: optax.chain(optax.sgd(s), optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)),
    "lbfgs": optax.lbfgs,
}
SCHEDULED = {
    "cosine": lambda s: optax.sgd(lambda count: s * decay(count)),
    "exponential": lambda s: optax.sgd(optax.exponential_decay(s, 10, 0.5)),
}
RULES = {"gradient_descent": gradient_descent()}
RULES |= {name: from_optax(factory) for name, factory in FACTORIES.items()}
RULES |= {name: from_optax(factory, autonomous=False) for name, factory in SCHEDULED.items()}
POLYNOMIAL = ScalarProduct(depth=2, target=1.0, scale=1.0)
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@each_rule
@each_dtype
def test_step_keeps_structure_shapes_and_dtypes(rule, dtype):
    step_size = jnp.asarray(0.1, dtype)
    state = rule.init(jnp.array([2.0, 0.3], dtype), step_size)
    moved = jax.jit(rule.step, static_argnums=0)(POLYNOMIAL.__call__, state, step_size)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(moved), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)
    assert rule.theta(moved).dtype == dtype
    assert bool((rule.theta(moved) != rule.theta(state)).any())


@each_rule
def test_critical_points_are_fixed(rule):
    theta = jnp.array([2.0, 0.5])
    moved = jax.jit(lambda state: rule.step(POLYNOMIAL, state, 0.1))(rule.init(theta, 0.1))
    assert_close(rule.theta(moved), theta)


@each_rule
def test_sweeping_the_step_size_compiles_once(rule):
    traces = 0

    @jax.jit
    def step(state, step_size):
        nonlocal traces
        traces += 1
        return rule.step(POLYNOMIAL, state, step_size)

    state = rule.init(jnp.array([2.0, 0.3]), 0.1)
    ends = [rule.theta(step(state, jnp.asarray(size))) for size in (0.05, 0.1, 0.2)]
    assert traces == 1
    assert all(bool(jnp.isfinite(end).all()) for end in ends)


@each_rule
def test_batched_equals_looped(rule):
    points = jnp.array([[2.0, 0.3], [0.4, 0.5], [-1.0, 0.2]])
    sizes = jnp.array([0.05, 0.1, 0.2])

    def orbit(theta, size):
        state = rule.init(theta, size)
        return rule.theta(jax.lax.fori_loop(0, 3, lambda _, state: rule.step(POLYNOMIAL, state, size), state))

    batched, orbit = jax.jit(jax.vmap(orbit))(points, sizes), jax.jit(orbit)
    assert_close(batched, jnp.stack([orbit(point, size) for point, size in zip(points, sizes, strict=True)]))
    trailing = jax.vmap(orbit, in_axes=-1, out_axes=-1)(points.T, sizes)
    assert_close(trailing.T, batched)


@pytest.mark.parametrize("name", FACTORIES | SCHEDULED)
def test_optax_orbit_is_the_one_of_optax(name):
    factory = (FACTORIES | SCHEDULED)[name]
    rule, theta = RULES[name], jnp.array([2.0, 0.3])
    transform = optax.with_extra_args_support(factory(0.1))
    expected, state = theta, rule.init(theta, 0.1)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        memory = transform.init(theta)
        for _ in range(3):
            value, slope = jax.value_and_grad(POLYNOMIAL)(expected)
            moves, memory = transform.update(
                slope, memory, expected, value=value, grad=slope, value_fn=POLYNOMIAL.__call__
            )
            expected = optax.apply_updates(expected, moves)
    step = jax.jit(lambda state: rule.step(POLYNOMIAL, state, 0.1))
    for _ in range(3):
        state = step(state)
    assert_close(rule.theta(state), expected)


def test_gradient_descent_on_a_tree():
    loss = LinearNetwork(jnp.eye(2), 2 * jnp.eye(2))
    theta = (jnp.eye(2), jnp.eye(2, dtype="float32").astype(float))
    moved = gradient_descent().step(loss, theta, 0.5)
    assert_close(moved[0], 1.5 * jnp.eye(2))
    one = from_optax(optax.sgd)
    jax.tree.map(assert_close, one.theta(one.step(loss, one.init(theta, 0.5), 0.5)), moved)


def test_equal_rules_hash_alike():
    assert gradient_descent() == gradient_descent()
    assert hash(gradient_descent()) == hash(gradient_descent())
    assert from_optax(optax.adam) is from_optax(optax.adam)
    assert not from_optax(SCHEDULED["cosine"], autonomous=False).autonomous


def noisy(step_size):
    return optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(step_size))


def raw_noisy(step_size):
    del step_size
    return optax.GradientTransformation(lambda _: {"rng_key": jnp.zeros(2, "uint32")}, lambda g, s, _=None: (g, s))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda s: optax.sgd(optax.warmup_cosine_decay_schedule(0.0, s, 5, 10)), "scale a schedule"),
        (lambda s: optax.sgd(float(s)), "scale a schedule"),
        (lambda s: optax.sgd(np.asarray(s) * 2), "scale a schedule"),
        (noisy, "deterministic"),
        (raw_noisy, "deterministic"),
        (lambda s: optax.inject_hyperparams(optax.sgd)(learning_rate=s), "stores it"),
        (lambda _: 0.1, "returns an optax.GradientTransformation"),
    ],
)
def test_refused_factories(factory, message):
    with pytest.raises(ValueError, match=message):
        from_optax(factory).init(jnp.ones(2), 0.1)


def test_built_optimiser_is_refused():
    with pytest.raises(ValueError, match="not an optimiser already built"):
        from_optax(optax.sgd(0.1))


def test_state_that_changes_structure_is_refused():
    grows = optax.GradientTransformation(lambda _: (), lambda g, s, _=None: (g, (*s, 0)))
    rule = from_optax(lambda _: grows)
    with pytest.raises(ValueError, match="keeps its structure"):
        rule.step(POLYNOMIAL, rule.init(jnp.ones(2), 0.1), 0.1)
