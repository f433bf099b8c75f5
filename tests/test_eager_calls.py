"""An eager call compiles nothing the second time, sees a loss that has changed, and holds none."""

import gc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gdstab import _staging, curvature, flow, lyapunov, minima, stability
from gdstab._staging import one_by_one, staged
from gdstab.updates import gradient_descent

compilations = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compilations.__setitem__(0, compilations[0] + event.endswith("backend_compile_duration"))
)


def compiled_by(call):
    before = compilations[0]
    call()
    return compilations[0] - before


class Looping:
    """A user's own object, neither a pytree nor a function, with a loop in the loss."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def residual(self, t):
        return lax.fori_loop(0, 3, lambda _, z: z * 1.0, t[:1] * t[1] - 1)

    def __call__(self, t):
        return 0.5 * self.scale * jnp.sum(self.residual(t) ** 2)


LOSS, RULE, KEY = Looping(), gradient_descent(), jax.random.key(0)
AT, ORIGIN = np.array([2.0, 0.5]), np.zeros(2)


def first_entry(loss, theta, step_size):
    return theta[0]


def graph():
    return stability.centre_stable(RULE, LOSS, jnp.asarray(ORIGIN), 0.1, radius=1.0)


slow = pytest.mark.slow
CALLS = {
    "hessian": lambda x: curvature.hessian(LOSS, x),
    "hvp": lambda x: curvature.hvp(LOSS, x, x),
    "inertia": lambda x: curvature.inertia(LOSS, x),
    "sharpness": lambda x: curvature.sharpness(LOSS, x),
    "lanczos": lambda x: curvature.sharpness(LOSS, x, dense_limit=0),
    "multipliers": lambda x: stability.multipliers(RULE, LOSS, x, 0.1),
    "determinant": lambda x: stability.jacobian_determinant(LOSS, x, 0.1),
    "threshold": lambda x: stability.threshold(LOSS, x),
    "preconditioned": lambda x: stability.preconditioned_sharpness(LOSS, x, jnp.ones(2)),
    "classify": lambda x: stability.classify(LOSS, x),
    "lyapunov_stable": lambda x: stability.lyapunov_stable(LOSS, x, 0.1),
    "centre_stable_dimension": lambda x: stability.center_stable_dimension(LOSS, x, 0.1),
    "threshold_of": lambda x: stability.threshold_of(RULE, LOSS, x, 0.01, 2.0),
    "singular_set": lambda _: stability.singular_set(LOSS, ((-2, 2), (-2, 2)), 0.3, resolution=3),
    "non_singularity": lambda x: stability.non_singularity(LOSS, jnp.stack([x, x + 1]), 0.3),
    "stable_part": lambda x: minima.stable_part(LOSS, jnp.stack([x, x]), [0.1]),
    "dimension": lambda x: minima.dimension(LOSS, x),
    "average": lambda x: lyapunov.average(RULE, LOSS, x, 0.1, 80, first_entry),
    "hvp of a flow": lambda x: flow.diagnose(LOSS, flow.gradient_flow(LOSS, x + 0.1, 9.0, max_steps=4)),
    "trace": lambda x: curvature.trace(LOSS, x, KEY, num_samples=4),
    "density": lambda x: curvature.spectral_density(LOSS, x, KEY, num_samples=4),
    "graph": lambda x: graph().invariance(x[:1] * 0.1),
    "project": lambda x: minima.project(LOSS, x + 0.1),
    "sample": lambda x: minima.sample(LOSS, KEY, 3, x),
    "trace_curve": lambda x: minima.trace_curve(LOSS, x, 0.3, 0.1),
    "flattest": lambda x: minima.flattest(LOSS, [x], max_iterations=3),
    "spectrum": lambda x: lyapunov.spectrum(RULE, LOSS, x, 0.1, 80),
}
COSTLY = {"density", "graph", "sample", "trace_curve", "flattest", "spectrum", "hvp of a flow", "project", "lanczos"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow) if name in COSTLY else name for name in CALLS])
def test_the_second_call_compiles_nothing(name):
    x = jnp.asarray(AT)
    CALLS[name](x)
    assert compiled_by(lambda: CALLS[name](x)) == 0


def test_a_loss_that_says_the_same_is_compiled_once_and_one_that_has_changed_is_seen():
    x, loss = jnp.asarray(AT), Looping(2.0)
    doubled = float(curvature.sharpness(loss, x))
    assert compiled_by(lambda: curvature.sharpness(Looping(2.0), x)) == 0
    loss.scale = 3.0
    assert float(curvature.sharpness(loss, x)) == pytest.approx(1.5 * doubled, rel=1e-12)
    assert doubled == pytest.approx(2 * 4.25, rel=1e-12)  # scale |theta|^2


def test_captured_arrays_are_arguments():
    """Those of jitted functions and those within loops as well: other data of the same shape compile nothing."""

    def make(data):
        data = jnp.asarray(data)
        inner = jax.jit(lambda t: jnp.sum((data @ t) ** 2))
        return lambda t: inner(t) + jnp.sum(np.asarray(data) @ t)

    x = jnp.ones(3)
    first = curvature.hessian(make(np.eye(3)), x)
    assert compiled_by(lambda: curvature.hessian(make(2 * np.eye(3)), x)) == 0
    np.testing.assert_array_equal(curvature.hessian(make(2 * np.eye(3)), x), 4 * first)


def test_losses_that_are_gone_are_freed_and_the_store_is_bounded(monkeypatch):
    monkeypatch.setattr(_staging, "_kept", type(_staging._kept)())
    monkeypatch.setattr(_staging, "LIMIT", 2)
    losses = [Looping(scale) for scale in (1.0, 2.0, 3.0)]
    data = jnp.ones(2)
    held = [weakref.ref(loss) for loss in losses]
    for loss in losses:
        staged(lambda x, loss=loss: loss(x * data), data)
    assert len(_staging._kept) == 2
    del loss, losses
    gc.collect()
    assert [ref() for ref in held] == [None] * 3


@pytest.mark.slow
def test_staging_is_no_obstacle_to_transformations():
    """Under jit, grad and vmap, in the loss's own numbers too, and with other rules of differentiation."""

    @jax.custom_jvp
    def odd(z):
        return jnp.sum(z**3)

    odd.defjvp(lambda p, t: (odd(p[0]), jnp.sum(5 * p[0] * t[0])))

    def top(scale, x):
        return curvature.sharpness(lambda t: scale * jnp.sum(t**2) + odd(t), x)

    x = jnp.ones(2)
    assert float(top(2.0, x)) == float(jax.jit(top)(2.0, x)) == 9.0  # 2 scale + 5, as the rule says
    assert float(jax.grad(top)(2.0, x)) == 2.0
    assert jax.vmap(top, (0, None))(jnp.arange(3.0), x).tolist() == [5.0, 7.0, 9.0]
    with jax.disable_jit():
        assert float(staged(jnp.sum, x)) == 2.0
    found = one_by_one(lambda point: eqx.filter(point, eqx.is_array), {"a": jnp.arange(3.0)})
    assert found["a"].tolist() == [0.0, 1.0, 2.0]
