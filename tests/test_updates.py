import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import ensembles
from gdstab.losses import LinearNetwork, ScalarProduct
from gdstab.outcomes import StoppingRule
from gdstab.updates import NAMES, from_optax, frozen, gradient_descent, named, named_family, second_moment
from tests.conftest import assert_close

decay = optax.cosine_decay_schedule(1.0, 100)
FACTORIES = {
    "sgd": optax.sgd,
    "momentum": lambda s: optax.sgd(s, momentum=0.9),
    "nesterov": lambda s: optax.sgd(s, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "amsgrad": optax.amsgrad,
    "rmsprop": optax.rmsprop,
    "centered": lambda s: optax.rmsprop(s, centered=True, momentum=0.5, bias_correction=True),
    "adagrad": optax.adagrad,
    "lion": lambda s: optax.lion(s, weight_decay=0.0),  # decay moves critical points
    "sign_sgd": optax.sign_sgd,
    "normalised": lambda s: optax.chain(optax.normalize_by_update_norm(), optax.sgd(s)),
    "clipped": lambda s: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(s)),
    "chain": lambda s: optax.chain(optax.clip(0.5), optax.ema(0.5), optax.scale_by_adam(), optax.scale(-s)),
    "polyak": lambda s: optax.polyak_sgd(max_learning_rate=s),
    "linesearch": lambda s: optax.chain(optax.sgd(s), optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)),
    "lbfgs": optax.lbfgs,
}
DECAYING = {  # critical points move
    "adamw": lambda s: optax.adamw(s, weight_decay=0.1),
    "lion_decay": lambda s: optax.lion(s, weight_decay=0.1),
    "decayed": lambda s: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(s, momentum=0.9)),
}
SCHEDULED = {
    "cosine": lambda s: optax.sgd(lambda count: s * decay(count)),
    "exponential": lambda s: optax.sgd(optax.exponential_decay(s, 10, 0.5)),
    "adam_warm": lambda s: optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda count: -s * decay(count))),
}
RULES = {"gradient_descent": gradient_descent()}
RULES |= {name: from_optax(factory) for name, factory in (FACTORIES | DECAYING).items()}
RULES |= {name: from_optax(factory, autonomous=False) for name, factory in SCHEDULED.items()}
POLYNOMIAL = ScalarProduct(depth=2, target=1.0, scale=1.0)
KINDS = {"gradient_descent", "nesterov", "adam", "clipped", "polyak", "adamw", "cosine"}  # one of each kind of state
each_rule = pytest.mark.parametrize(
    "rule",
    [pytest.param(rule, id=name, marks=() if name in KINDS else pytest.mark.slow) for name, rule in RULES.items()],
)
FROZEN = {("adam", "float64"), ("rmsprop", "float32"), ("centered", "float64")}  # what of these is always looked at


@each_rule
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
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
def test_critical_points_are_fixed_but_by_decay(rule):
    theta = jnp.array([2.0, 0.5])
    moved = jax.jit(lambda state: rule.step(POLYNOMIAL, state, 0.1))(rule.init(theta, 0.1))
    if rule in [RULES[name] for name in DECAYING]:
        assert bool((jnp.abs(rule.theta(moved)) < theta).all())
    else:
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in KINDS | {"linesearch"} else pytest.mark.slow)
        for name in FACTORIES | DECAYING | SCHEDULED
    ],
)
def test_optax_orbit_is_the_one_of_optax(name):
    factory = (FACTORIES | DECAYING | SCHEDULED)[name]
    rule, theta = RULES[name], jnp.array([2.0, 0.3])
    transform = optax.with_extra_args_support(factory(0.1))
    expected, state = theta, rule.init(theta, 0.1)

    @jax.jit
    def plain(theta, memory):
        value, slope = jax.value_and_grad(POLYNOMIAL)(theta)
        moves, memory = transform.update(slope, memory, theta, value=value, grad=slope, value_fn=POLYNOMIAL.__call__)
        return optax.apply_updates(theta, moves), memory

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        memory = transform.init(theta)
        for _ in range(3):
            expected, memory = plain(expected, memory)
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


@pytest.mark.parametrize(
    "name", ["adam", "cosine", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nesterov", "clipped", "adamw"))]
)
def test_an_ensemble_takes_every_rule(name):
    """Blocks, early exit and repacking of stragglers keep counters and momenta: all ends as in a plain loop."""
    points = jnp.array([[2.0, 0.3], [0.4, 0.5]])
    stopping = StoppingRule(loss_tol=None, max_steps=70)
    found = ensembles.run(RULES[name], POLYNOMIAL, points, jnp.array([0.05, 0.1]), stopping)
    assert (found.steps == 70).all()
    for i, size in enumerate((0.05, 0.1)):
        for j in range(2):
            rule, state = RULES[name], RULES[name].init(points[j], size)
            loop = jax.jit(
                lambda s, e, rule=rule: jax.lax.fori_loop(0, 70, lambda _, s: rule.step(POLYNOMIAL, s, e), s)
            )
            assert_close(found.theta[i, j], rule.theta(loop(state, jnp.asarray(size))))


def test_counters_stop_at_their_last_number():
    """Counters of a long run neither wrap around nor turn the step into something else."""
    rule = from_optax(optax.adam)
    theta, memory = rule.init(jnp.array([2.0, 0.3]), 0.1)
    kind = memory[0].count.dtype
    last = jnp.iinfo(kind).max
    step = jax.jit(lambda state: rule.step(POLYNOMIAL, state, 0.1))
    ends = [step((theta, (memory[0]._replace(count=jnp.asarray(n, kind)), *memory[1:]))) for n in (last, last - 5)]
    assert int(ends[0][1][0].count) == last
    assert_close(ends[0][0], ends[1][0])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in {"descent", "heavy-ball", "adamw", "lion"} else pytest.mark.slow)
        for name in NAMES
    ],
)
def test_named_optimisers(name):
    rule = named(name, beta=0.8, beta2=0.95, eps=1e-6)
    assert rule is named(name, beta=0.8, beta2=0.95, eps=1e-6)
    assert rule.autonomous
    plain = {
        "descent": optax.sgd,
        "heavy-ball": lambda s: optax.sgd(s, momentum=0.8),
        "nesterov": lambda s: optax.sgd(s, momentum=0.8, nesterov=True),
        "rmsprop": lambda s: optax.rmsprop(s, decay=0.95, eps=1e-6, eps_in_sqrt=False),
        "adam": lambda s: optax.adam(s, b1=0.8, b2=0.95, eps=1e-6),
        "adamw": lambda s: optax.adamw(s, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.0),
        "adagrad": lambda s: optax.adagrad(s, eps=1e-6),
        "lion": lambda s: optax.lion(s, b1=0.8, b2=0.95, weight_decay=0.0),
        "sign": optax.sign_sgd,
        "normalised": FACTORIES["normalised"],
    }[name]
    theta, size = jnp.array([2.0, 0.3]), jnp.asarray(0.1)

    def orbit(rule, theta, loss):
        state = rule.init(theta, size)
        return rule.theta(jax.lax.fori_loop(0, 4, lambda _, state: rule.step(loss, state, size), state))

    expected = jax.jit(lambda theta: orbit(from_optax(plain), theta, POLYNOMIAL))(theta)
    assert_close(jax.jit(lambda theta: orbit(rule, theta, POLYNOMIAL))(theta), expected, factor=1e-4)
    # As a family, every orbit brings its own beta.
    family = named_family(name, beta2=0.95, eps=1e-6)
    pairs = (jnp.stack([theta, theta]), jnp.array([0.8, 0.3]))
    found, betas = jax.jit(jax.vmap(lambda pair: orbit(family, pair, lambda pair: POLYNOMIAL(pair[0]))))(pairs)
    assert_close(found[0], expected, factor=1e-4)
    assert betas.tolist() == [0.8, 0.3]
    if name != "lion":  # whose signs are the same here
        assert bool((found[0] != found[1]).any()) == (name in {"heavy-ball", "nesterov", "adam", "adamw"})


def test_weight_decay_is_descent_on_the_penalised_loss():
    theta, size = jnp.array([2.0, 0.3]), jnp.asarray(0.1)
    for name in ("descent", "heavy-ball", "adam"):
        decayed, plain = named(name, weight_decay=0.3), named(name)
        moved = jax.jit(lambda s, rule=decayed: rule.step(POLYNOMIAL, s, size))(decayed.init(theta, size))

        def penalised(theta):
            return POLYNOMIAL(theta) + 0.15 * jnp.sum(theta**2)

        expected = jax.jit(lambda s, rule=plain: rule.step(penalised, s, size))(plain.init(theta, size))
        assert_close(decayed.theta(moved), plain.theta(expected), factor=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in FROZEN else pytest.mark.slow)
        for name in ("adam", "rmsprop", "amsgrad", "adagrad", "centered")
        for dtype in ("float32", "float64")
    ],
)
def test_frozen_rules_divide_by_what_was_held(name, dtype):
    """At frozen nu a step is linear in the gradient, whatever its size: no memory of its square is left."""
    nu = jnp.array([4.0, 0.25], dtype)
    rule = frozen(RULES[name], nu)
    theta, size = jnp.array([2.0, 0.3], dtype), jnp.asarray(0.1, dtype)
    state = rule.init(theta, size)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(dtype)}
    step = jax.jit(lambda scale: rule.step(lambda x: scale * jnp.sum(x * jnp.array([1, -2], dtype)), state, size))
    one, ten = step(jnp.asarray(1, dtype)), step(jnp.asarray(10, dtype))
    assert jax.tree.structure(one) == jax.tree.structure(state)
    move, tenfold = rule.theta(one) - theta, rule.theta(ten) - theta
    if name != "centered":  # which subtracts the square of the mean gradient
        np.testing.assert_allclose(tenfold, 10 * move, rtol=1e-4 if dtype == "float32" else 1e-6)
        momentum = 0.1 if name in {"adam", "amsgrad"} else 1.0
        np.testing.assert_allclose(move, -0.1 * momentum * np.array([1, -2]) / np.sqrt(nu), rtol=1e-4)
    assert rule.autonomous


@pytest.mark.slow
def test_frozen_rules_of_trees_and_families():
    loss = LinearNetwork(jnp.eye(2), 2 * jnp.eye(2))
    theta = (jnp.eye(2), 0.5 * jnp.eye(2))
    adam = RULES["adam"]
    state = jax.jit(lambda state: adam.step(loss, state, 0.1))(adam.init(theta, 0.1))
    nu = jax.tree.map(lambda leaf: leaf + 0.5, second_moment(state))
    moved = frozen(adam, nu).step(loss, frozen(adam, nu).init(theta, 0.1), 0.1)
    slope = jax.grad(loss)(theta)
    for new, old, gradient, held in zip(*(jax.tree.leaves(t) for t in (moved[0], theta, slope, nu)), strict=True):
        assert_close(new, old - 0.1 * 0.1 * gradient / jnp.sqrt(held))
    family = frozen(named_family("adam"), 4.0)
    pair = (jnp.array([2.0, 0.3]), jnp.asarray(0.5))
    found = family.theta(family.step(lambda pair: POLYNOMIAL(pair[0]), family.init(pair, 0.1), 0.1))
    assert_close(found[0], pair[0] - 0.1 * 0.5 * jax.grad(POLYNOMIAL)(pair[0]) / 2)
    assert found[1] == 0.5


def test_what_cannot_be_frozen_is_refused():
    with pytest.raises(ValueError, match="need no freezing"):
        frozen(RULES["momentum"], 1.0).init(jnp.ones(2), 0.1)
    with pytest.raises(ValueError, match="need no freezing"):
        second_moment(RULES["sgd"].init(jnp.ones(2), 0.1))
    with pytest.raises(ValueError, match="schedule"):
        frozen(RULES["adam_warm"], 1.0)
    for nu in (0.0, -1.0, jnp.array([1.0, jnp.nan])):
        with pytest.raises(ValueError, match="positive finite"):
            frozen(RULES["adam"], nu)
    with pytest.raises(ValueError, match="tree like the parameters"):
        frozen(RULES["adam"], jnp.ones(3)).init(jnp.ones(2), 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nonsense"}, "expected one of descent"),
        ({"name": "adam", "beta": 1.0}, "beta: "),
        ({"name": "adam", "beta2": -0.1}, "beta2: "),
        ({"name": "adam", "eps": -1.0}, "eps: "),
        ({"name": "adam", "weight_decay": float("inf")}, "weight_decay: "),
    ],
)
def test_bad_numbers_of_named_optimisers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        named(**arguments)


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_must_be_said(name):
    with pytest.raises(ValueError, match="autonomous=False"):
        from_optax(SCHEDULED[name]).init(jnp.ones(2), 0.1)
    injected = from_optax(
        lambda s: optax.chain(optax.inject_hyperparams(optax.adam)(learning_rate=decay), optax.scale(s))
    )
    with pytest.raises(ValueError, match="autonomous=False"):
        injected.init(jnp.ones(2), 0.1)


def test_equal_rules_hash_alike():
    assert gradient_descent() == gradient_descent()
    assert hash(gradient_descent()) == hash(gradient_descent())
    assert from_optax(optax.adam) == from_optax(optax.adam)
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
