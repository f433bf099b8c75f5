"""Tasks of the field, as a user would write them: labelled basins, optimisers of all kinds, windows, conservation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gdstab as gd
from gdstab import losses, updates

STOP = gd.StoppingRule(loss_tol=1e-10, max_steps=4000)
VALLEYS = losses.Himmelblau()


def test_himmelblau_by_minimum_for_three_rules_from_the_same_starts():
    source = gd.sampling.RandomSource.box(jax.random.key(2), 500, ((-5, 5), (-5, 5)))
    minima = jnp.asarray(VALLEYS.minima())

    def nearest(theta):
        return jnp.argmin(jnp.sum((minima - theta[None]) ** 2, axis=1))

    tables = {}
    for name, step_size in (("descent", 0.01), ("heavy-ball", 0.003), ("adam", 0.1)):
        rule = updates.named(name)
        found = gd.basins.measure(rule, VALLEYS, step_size, source, stopping=STOP, label=nearest)
        tables[name] = found.attractors.lanes[0]
        assert found.attractors.num == 4
        assert tables[name].sum() == found.count("converged")[0] > 470
        share = found.label_share()
        assert ((share.low <= share.value) & (share.value <= share.high)).all()
    theta = np.asarray(source(jnp.arange(500)))
    for _ in range(3000):  # descent again, as a loop in NumPy
        x, y = theta.T
        a, b = x**2 + y - 11, x + y**2 - 7
        theta = theta - 0.01 * np.stack([4 * a * x + 2 * b, 2 * a + 4 * b * y], axis=1)
    ends = ((theta[:, None] - np.asarray(minima)[None]) ** 2).sum(axis=2)
    there = np.isfinite(theta).all(axis=1) & (ends.min(axis=1) < 1e-6)
    assert np.abs(np.bincount(ends.argmin(axis=1)[there], minlength=4) - tables["descent"]).max() <= 2
    assert (tables["heavy-ball"] != tables["descent"]).any()


def quadratic(h):
    return lambda theta: h * jnp.sum(theta**2) / 2


def own(step):
    return updates.UpdateRule(lambda theta, _: theta, step, lambda state: state)


def sharpness_aware(loss, theta, step_size):
    """Without normalisation, radius 0.3: the gradient is taken a little uphill."""
    return theta - step_size * jax.grad(loss)(theta + 0.3 * jax.grad(loss)(theta))


def extragradient(loss, theta, step_size):
    return theta - step_size * jax.grad(loss)(theta - step_size * jax.grad(loss)(theta))


def newton(loss, theta, step_size):
    return theta - step_size * jnp.linalg.solve(jax.hessian(loss)(theta), jax.grad(loss)(theta))


def implicit(loss, theta, step_size):
    """The proximal point by Newton's method, which is exact on a quadratic."""
    slope = jax.grad(loss)(theta)
    return theta - step_size * jnp.linalg.solve(jnp.eye(theta.size) + step_size * jax.hessian(loss)(theta), slope)


@pytest.mark.parametrize(
    ("step", "exact"),
    [
        (sharpness_aware, 2 / (3 * (1 + 0.3 * 3))),  # 2 / (h (1 + r h))
        (extragradient, 1 / 3),  # 1 - x + x^2 passes 1 at x = eta h = 1
        pytest.param(newton, 2.0, marks=pytest.mark.slow),
        pytest.param(implicit, np.inf, marks=pytest.mark.slow),
    ],
)
def test_thresholds_of_rules_of_ones_own(step, exact):
    rule = own(step)
    found = gd.stability.threshold_of(rule, quadratic(3.0), jnp.zeros(2), low=0.05, high=5.0)
    assert found.step_size == pytest.approx(exact, rel=1e-6)
    below, above = (
        gd.settle(rule, quadratic(3.0), jnp.ones(2), eta, gd.StoppingRule(max_steps=2000)).outcome
        for eta in (0.95 * min(exact, 5.0), 1.05 * min(exact, 5.0))
    )
    assert below == gd.Outcome.CONVERGED
    assert (above == gd.Outcome.CONVERGED) == np.isinf(exact)


def polyak(loss, theta, step_size):
    slope = jax.grad(loss)(theta)
    return theta - step_size * loss(theta) / jnp.sum(slope**2) * slope


def test_polyaks_step_has_no_multipliers_and_is_known_by_its_orbits():
    """On a quadratic it is descent with the step 1 / (2 h): below 4 it converges."""
    with pytest.raises(ValueError, match=r"moves by nan.*normalised steps"):
        gd.stability.threshold_of(own(polyak), quadratic(3.0), jnp.zeros(2), low=0.05, high=5.0)
    ends = gd.run(own(polyak), quadratic(3.0), np.ones((1, 2)), [3.8, 4.2], gd.StoppingRule(max_steps=2000))
    assert [gd.Outcome(code).name for code in ends.outcome[:, 0]] == ["CONVERGED", "DIVERGED"]


BENT = quadratic(1.0)
FEW = gd.StoppingRule(loss_tol=None, max_steps=4)
RUNS = "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lbfgs lion nadam nadamw novograd optimistic_adam optimistic_gradient_descent polyak_sgd radam rmsprop sgd sign_sgd sm3 yogi"  # noqa: E501
CONTRIBUTED = "acprop ademamix cocob dadapt_adamw dog dowg momo momo_adam muon prodigy simplified_ademamix"
OTHERS = {
    "sam": (lambda s: contrib.sam(optax.sgd(s), optax.sgd(0.05), sync_period=2), {}),
    "opaque sam": (lambda s: contrib.sam(optax.sgd(s), optax.sgd(0.05), sync_period=2, opaque_mode=True), {}),
    "mechanize": (lambda s: contrib.mechanize(optax.sgd(s)), {}),
    "schedule_free_sgd": (contrib.schedule_free_sgd, {"autonomous": False}),
    "schedule_free_adamw": (contrib.schedule_free_adamw, {"autonomous": False}),
}
REFUSED = {
    "noisy_sgd": (optax.noisy_sgd, "draws random numbers"),
    "rprop": (optax.rprop, "stores it"),
    "sophia": (contrib.sophia, "draws random numbers"),
    "schedule": (contrib.schedule_free_sgd, "pass `autonomous=False`"),
}
KNOWN = {name: (getattr(optax, name), {}) for name in RUNS.split() if hasattr(optax, name)}
KNOWN |= {name: (getattr(contrib, name), {}) for name in CONTRIBUTED.split() if hasattr(contrib, name)} | OTHERS


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize(
    "name", [name if name == "opaque sam" else pytest.param(name, marks=pytest.mark.slow) for name in KNOWN]
)
def test_optimisers_of_optax_run_or_say_in_one_line_what_they_lack(name):
    factory, more = KNOWN[name]
    rule = gd.from_optax(factory, **more)
    ends = gd.run(rule, BENT, np.ones((2, 2)), 0.05, FEW)
    assert np.isfinite(ends.theta).all()
    assert (ends.steps == 4).all()
    try:
        found = gd.lyapunov.largest(rule, BENT, rule.init(jnp.ones(2), 0.05), 0.05, 128)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either will do)
        assert str(error).startswith("expected ")  # noqa: PT017
    else:
        assert np.isfinite(found.value)


@pytest.mark.filterwarnings("ignore:Specifying a key")
@pytest.mark.parametrize("name", REFUSED)
def test_optimisers_that_are_no_maps_are_refused(name):
    factory, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as told:
        gd.run(gd.from_optax(factory), BENT, np.ones((2, 2)), 0.05, FEW)
    assert "\n" not in str(told.value)


def test_momentum_on_a_quartic_has_a_window_of_period_three():
    """Heavy ball with momentum 0.3 in a double well, at step sizes around 1.257; against a loop in NumPy."""
    step_sizes = np.linspace(1.2548, 1.2578, 7)
    diagram = gd.bifurcation.orbit_diagram(
        updates.named("heavy-ball", beta=0.3),
        losses.DoubleWell(),
        step_sizes,
        np.array([[0.31]]),
        transient=6000,
        kept=64,
    )
    x, v, path = np.full(7, 0.31), np.zeros(7), []
    for number in range(6004):
        v = 0.3 * v - step_sizes * (x**3 - x)
        x = x + v
        path += [x] if number >= 6000 else []
    returns = (np.abs(path[3] - path[0]) < 1e-8) & (np.abs(path[1] - path[0]) > 1e-3)
    assert 0 < returns.sum() < 7
    np.testing.assert_array_equal(diagram.period[:, 0] == 3, returns)


def test_what_the_flow_conserves_descent_changes_in_second_order():
    r"""$W_2^T W_2 - W_1 W_1^T$: constant along the flow; each step changes it by $\eta^2$, a whole time by $\eta$."""
    rng = np.random.default_rng(4)
    theta = tuple(jnp.asarray(rng.standard_normal((2, 2)) / 2) for _ in range(2))
    loss = losses.LinearNetwork(jnp.eye(2), jnp.asarray([[1.0, 0.3], [0.0, 0.7]]))

    def imbalance(layers):
        first, second = layers
        return second.T @ second - first @ first.T

    flow = gd.flow.gradient_flow(loss, theta, 2.0).theta
    np.testing.assert_allclose(imbalance(flow), imbalance(theta), atol=1e-7)
    drifts = []
    for num in (100, 200):
        path = gd.rollout(gd.gradient_descent(), loss, theta, 2.0 / num, num)
        last = jax.tree.map(lambda leaf: leaf[-1], path)
        drifts.append(float(jnp.linalg.norm(imbalance(last) - imbalance(theta))))
    assert drifts[0] / drifts[1] == pytest.approx(2, rel=0.1)
