"""Rules that draw random numbers: their laws, and that no way of cutting the work changes an orbit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gdstab as gd
from gdstab import losses, updates

KEY = jax.random.key(7)
LONG = gd.StoppingRule(loss_tol=None, max_steps=60)
LANES = 6000


def bowl(theta):
    """Curvature 2 in each of two directions."""
    return jnp.sum(theta**2)


LANGEVIN = updates.langevin(KEY, 0.3)


@pytest.fixture(scope="module")
def cloud():
    return gd.run(LANGEVIN, bowl, np.zeros((LANES, 2)), 0.2, LONG)


def test_langevin_has_its_stationary_variance(cloud):
    """T / (h (1 - eta h / 2)), from the recursion of the variance; 60 steps contract by 0.6 each."""
    exact = 0.3 / (2 * (1 - 0.2))
    spread = exact * np.sqrt(2 / (2 * LANES))
    assert np.mean(cloud.theta**2) == pytest.approx(exact, abs=4 * spread)
    assert abs(np.mean(cloud.theta[:, 0] * cloud.theta[:, 1])) < 4 * exact / np.sqrt(LANES)
    assert abs(np.corrcoef(cloud.theta[:-1, 0], cloud.theta[1:, 0])[0, 1]) < 4 / np.sqrt(LANES)  # lanes know no others


def test_neither_tiles_nor_step_sizes_nor_the_others_change_a_lane(cloud):
    parts = gd.ensembles.iter_run(
        LANGEVIN, bowl, np.zeros((LANES, 2)), 0.2, LONG, keep=("theta",), tile=2048, spans=[(2048, 4096), (5000, 5003)]
    )
    for part in parts:
        np.testing.assert_array_equal(part.theta, cloud.theta[part.start : part.stop])
    few = gd.run(LANGEVIN, bowl, np.zeros((8, 2)), [0.1, 0.2], LONG)
    np.testing.assert_allclose(few.theta[1], cloud.theta[:8], rtol=1e-12)
    alone = gd.settle(LANGEVIN, bowl, jnp.zeros(2), 0.2, LONG)
    np.testing.assert_allclose(alone.theta, cloud.theta[0], rtol=1e-12)
    source = gd.sampling.GridSource(((0, 1), (0, 1)), (2, 4), origin=[0.0, 0.0], directions=1e-300 * np.eye(2))
    drawn = gd.run(LANGEVIN, bowl, source, 0.2, LONG)
    np.testing.assert_allclose(drawn.theta, cloud.theta[:8], rtol=1e-12)


@pytest.mark.slow
def test_stragglers_are_found_again_with_their_numbers():
    """Some lanes stop at once, the others run through several passes of the engine, packed anew."""
    stopping = gd.StoppingRule(loss_tol=1e-4, max_steps=200)
    points = np.where(np.arange(2100)[:, None] % 3 == 0, 0.0, 1.0) * np.ones((2100, 2))
    found = gd.run(LANGEVIN, bowl, points, 0.2, stopping)
    for lane in (1, 2, 1400, 2099):
        few = gd.run(LANGEVIN, bowl, points[: lane + 1], 0.2, stopping)
        assert few.steps[lane] == found.steps[lane]
        np.testing.assert_allclose(few.theta[lane], found.theta[lane], rtol=1e-9)


@pytest.fixture(scope="module")
def line():
    """y = w x with eight samples; the square loss is a quadratic in w."""
    x = np.linspace(0.5, 2, 8)[:, None]
    y = x * 1.5 + np.where(np.arange(8) % 2, 0.4, -0.4)[:, None]
    model = eqx.nn.Linear(1, 1, use_bias=False, key=KEY)
    return losses.NetworkRisk(model, x, y, loss="mse"), x[:, 0], y[:, 0]


def test_batches_are_unbiased_and_have_the_variance_of_sampling(line):
    risk, x, y = line
    rule, start = updates.sgd(KEY, 2), risk.theta0
    points = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], LANES, 0), start)
    moved = gd.run(rule, risk, points, 0.1, gd.StoppingRule(loss_tol=None, max_steps=1)).theta.weight[:, 0, 0]
    w = float(start.weight[0, 0])
    slopes = (w * x - y) * x
    variance = slopes.var() / 2 * (8 - 2) / (8 - 1)  # of a mean of 2 out of 8, drawn without replacement
    steps = (w - moved) / 0.1
    assert steps.mean() == pytest.approx(slopes.mean(), abs=4 * np.sqrt(variance / LANES))
    assert steps.var() == pytest.approx(variance, rel=0.1)


def test_noise_on_labels_has_its_variance(line):
    risk, x, _ = line
    rule, start = updates.label_noise(KEY, 0.5), risk.theta0
    points = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], LANES, 0), start)
    moved = gd.run(rule, risk, points, 0.1, gd.StoppingRule(loss_tol=None, max_steps=1)).theta.weight[:, 0, 0]
    assert (moved / 0.1).var() == pytest.approx(0.25 * (x**2).sum() / 64, rel=0.1)


@pytest.mark.slow
def test_a_mean_settles_where_the_orbit_does_not():
    stopping = gd.StoppingRule(loss_tol=3e-3, max_steps=2000)
    noisy = updates.langevin(KEY, 0.05)
    plain = gd.run(noisy, bowl, np.full((64, 2), 2.0), 0.05, gd.StoppingRule(loss_tol=None, max_steps=2000))
    mean = gd.run(updates.averaged(noisy, 0.995), bowl, np.full((64, 2), 2.0), 0.05, stopping)
    assert (plain.loss > 3e-3).mean() > 0.8
    assert (mean.outcome == gd.Outcome.CONVERGED).all()


def test_what_needs_a_map_says_so():
    for ask in (
        lambda: gd.stability.multipliers(LANGEVIN, bowl, LANGEVIN.init(jnp.zeros(2), 0.1), 0.1),
        lambda: gd.orbits.find_cycle(LANGEVIN, bowl, LANGEVIN.init(jnp.zeros(2), 0.1), 0.1),
        lambda: gd.bifurcation.orbit_diagram(LANGEVIN, bowl, [0.1], np.zeros((2, 2)), transient=9, kept=9),
        lambda: gd.lyapunov.largest(LANGEVIN, bowl, LANGEVIN.init(jnp.zeros(2), 0.1), 0.1, 200),
        lambda: gd.stability.threshold_of(LANGEVIN, bowl, jnp.zeros(2), low=0.1, high=1.0),
    ):
        with pytest.raises(
            ValueError, match="expected a rule that is one map iterated, got one that draws random numbers"
        ) as told:
            ask()
        assert "\n" not in str(told.value)


def test_bad_input_is_refused(line):
    with pytest.raises(ValueError, match=r"key: expected one such as jax.random.key\(0\)"):
        updates.langevin(jnp.zeros(2), 0.1)
    with pytest.raises(ValueError, match="expected a loss of samples, with num_samples and on_samples"):
        gd.settle(updates.sgd(KEY, 2), bowl, jnp.zeros(2), 0.1, LONG)
    with pytest.raises(ValueError, match="batch: expected at most the 8 samples of the loss, got 9"):
        gd.settle(updates.sgd(KEY, 9), line[0], line[0].theta0, 0.1, LONG)
    with pytest.raises(ValueError, match="expected a loss with a residual"):
        gd.settle(updates.label_noise(KEY, 1.0), bowl, jnp.zeros(2), 0.1, LONG)
    with pytest.raises(ValueError, match="decay: expected a number from 0 up to 1"):
        updates.averaged(gd.gradient_descent(), 1.0)
