"""What goes in: callables as losses, trees as parameters; what is compiled for them, how long, and what runs alone."""

import dataclasses
import functools
import gc
import os
import subprocess
import sys
import types
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import gdstab as gd
from gdstab import _compiling, _guard, _validate, ensembles
from gdstab._identity import Look, is_any_array, is_number
from gdstab.outcomes import Outcome, StoppingRule

DESCENT = gd.gradient_descent()
POINTS = np.array([[0.5, 1.5], [3.0, 3.0]])
FACTOR = 1.0


class Mutable:
    """A loss whose attributes may change, and which calls every other one its equal."""

    def __init__(self, target=1.0, data=None):
        self.target, self.data = target, data

    def __call__(self, theta):
        return (self.target - theta[0] * theta[1]) ** 2

    def method(self, theta):
        return self(theta)

    def __eq__(self, other):
        return isinstance(other, Mutable)

    def __hash__(self):
        return 0


class Shared:
    target = 1.0

    def __call__(self, theta):
        return self.target * product(theta)


settings = types.ModuleType("settings")
settings.target = 1.0


class Slotted:
    __slots__ = ("target",)

    def __init__(self):
        self.target = 1.0

    def __call__(self, theta):
        return (self.target - theta[0] * theta[1]) ** 2


@dataclasses.dataclass
class Plain:
    """No hash."""

    target: float = 1.0

    def __call__(self, theta):
        return (self.target - theta[0] * theta[1]) ** 2


class Module(eqx.Module):
    parts: list
    named: dict

    def __call__(self, theta):
        return (self.parts[0] * self.named["target"] - theta[0] * theta[1]) ** 2


def product(theta):
    return (FACTOR - theta[0] * theta[1]) ** 2


def key(loss):
    return Look(loss, is_number).key


#
# What is the same to a compiler
#


def _closure(box):
    return lambda theta: (box["target"] - theta[0] * theta[1]) ** 2


theta = 1.0


def _attribute(pair):
    return jnp.sum(pair.theta)


def _scale(a, theta):
    return a[0] * product(theta)


def _changes():
    """A callable, and how it is changed."""
    mutable, slotted, plain, box, array = Mutable(), Slotted(), Plain(), {"target": 1.0}, np.ones(3)
    large, jaxed, inner = np.ones(2**18), Mutable(data=jnp.ones(2)), Mutable(data=Mutable())
    yield "attribute", mutable, lambda: setattr(mutable, "target", 2.0)
    yield "slot", slotted, lambda: setattr(slotted, "target", 2.0)
    yield "dataclass", plain, lambda: setattr(plain, "target", 2.0)
    yield "method", mutable.method, lambda: setattr(mutable, "target", 3.0)
    yield "closure", _closure(box), lambda: box.update(target=2.0)
    yield "default", lambda theta, a=array: a[0] * product(theta), lambda: array.__setitem__(1, 2.0)
    yield "large array", lambda theta: large[0] * product(theta), lambda: large.__setitem__(77, 2.0)
    yield "array of jax", jaxed, lambda: setattr(jaxed, "data", jnp.ones(2))
    yield "inner object", inner, lambda: setattr(inner.data, "target", 2.0)
    yield "partial", functools.partial(_scale, array), lambda: array.__setitem__(2, 3.0)
    yield "floor", product, lambda: setattr(product, "loss_floor", -1.0)
    yield "global", product, lambda: globals().update(FACTOR=2.0)
    yield "class", Shared(), lambda: setattr(Shared, "target", 2.0)
    yield "module", lambda theta: settings.target * product(theta), lambda: setattr(settings, "target", 2.0)
    yield "field", Module([mutable], {"target": 1.0}), lambda: setattr(mutable, "target", 5.0)


@pytest.mark.parametrize(("name", "loss", "change"), [pytest.param(*each, id=each[0]) for each in _changes()])
def test_a_changed_callable_is_another(name, loss, change, monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", 1.0)
    before = key(loss)
    assert key(loss) == before
    change()
    assert key(loss) != before
    product.__dict__.clear()


def test_callables_are_told_by_identity_and_modules_by_what_they_hold():
    one, other = Mutable(), Mutable()
    assert one == other
    assert key(one) != key(other)
    assert key(one.method) == key(one.method) != key(other.method)
    assert key(functools.partial(_scale, [1.0])) == key(functools.partial(_scale, [1.0]))
    assert key(Module([jnp.ones(2)], {"target": 1.0})) == key(Module([jnp.zeros(3)], {"target": 2.0}))
    assert key(Module([1], {"target": 1.0})) != key(Module([2], {"target": 1.0}))
    assert key(gd.from_optax(optax.adam)) == key(gd.from_optax(optax.adam)) != key(gd.from_optax(optax.sgd))
    global theta
    before, theta = key(_attribute), 2.0
    assert key(_attribute) == before  # a global of the name of an attribute is not read
    recursive = Mutable()
    recursive.data = [recursive]
    assert key(recursive) == key(recursive)


def test_numbers_are_given_once():
    """An array made where another one lay is another one."""
    seen = set()
    for _ in range(50):
        seen.add(Look(functools.partial(_scale, np.ones(1)), is_any_array).key)
    assert len(seen) == 50


def test_what_a_trace_changes_is_no_reason_to_trace_again():
    calls = []

    @_compiling.jit
    def counted(fn, x):
        return fn(x)

    def loss(x):
        calls.append(1)
        return 2 * x

    assert [float(counted(loss, jnp.asarray(x))) for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert len(calls) == 1


#
# What is kept, and for how long
#

USERS = {
    "run": lambda loss: gd.run(DESCENT, loss, POINTS, 0.1, StoppingRule(max_steps=3)),
    "map_points": lambda loss: ensembles.map_points(loss, POINTS),
    "largest": lambda loss: gd.lyapunov.largest(DESCENT, loss, jnp.ones(2), 0.1, 100),
    "refine": lambda loss: gd.orbits.refine(DESCENT, loss, jnp.ones(2), 0.1, 1),
    "flow": lambda loss: gd.flow.gradient_flow(loss, jnp.ones(2), 0.1, max_steps=16),
}


@pytest.mark.parametrize("user", ["run", *(pytest.param(name, marks=pytest.mark.slow) for name in list(USERS)[1:])])
def test_nothing_is_left_of_a_loss_that_is_gone(user):
    data = np.ones(1000)
    loss = lambda theta: jnp.mean((theta[0] - data) ** 2) + product(theta)  # noqa: E731, F821 (deleted further down)
    refs = [weakref.ref(loss), weakref.ref(data)]
    before = set(_compiling._ENTRIES)
    USERS[user](loss)
    assert set(_compiling._ENTRIES) - before
    del loss, data
    gc.collect()
    assert refs[0]() is None
    assert set(_compiling._ENTRIES) <= before


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(_compiling, "_ENTRIES", {})
    monkeypatch.setattr(_compiling, "MOST", 3)
    losses = [Mutable() for _ in range(5)]
    uses = [_compiling.Use(loss, is_number) for loss in losses]
    assert list(_compiling._ENTRIES.values()) == [use.entry for use in uses[2:]]
    assert _compiling.Use(losses[2], is_number).entry is uses[2].entry  # and now the last to go
    _compiling.Use(losses[0], is_number)
    assert uses[2].entry in _compiling._ENTRIES.values()
    assert uses[3].entry not in _compiling._ENTRIES.values()
    monkeypatch.setattr(_compiling, "MOST_BYTES", 1000)
    heavy = [Mutable(data=np.ones(100)) for _ in range(3)]
    kept = [_compiling.Use(loss, is_number).entry for loss in heavy]
    assert list(_compiling._ENTRIES.values()) == kept[-1:]


def test_a_changed_loss_runs_as_it_is_now():
    """An object, its attribute, an array in place; the equal ones of a class never share what was compiled."""
    loss, other = Plain(1.0), Mutable(3.0)
    stop = StoppingRule(max_steps=500)
    for target in (1.0, 2.0):
        loss.target = target
        found = gd.run(DESCENT, loss, POINTS[:1], 0.05, stop, keep="theta")
        assert found.loss is None
        assert np.prod(found.theta) == pytest.approx(target, abs=1e-5)
    values = [ensembles.map_points(fn, POINTS)[0] for fn in (Mutable(1.0), other, Slotted(), other.method)]
    assert values == [0.0625, 2.25**2, 0.0625, 2.25**2]


#
# What runs alone
#


@jax.custom_vjp
def _backward_only(x):
    return jnp.sum(x**2)


_backward_only.defvjp(
    lambda x: (jnp.sum(x**2), x), lambda x, g: (g * jnp.linalg.solve(jnp.eye(2) + jnp.outer(x, x), x),)
)


@jax.custom_jvp
def _forward_only(x):
    return jnp.sum(x**2)


@_forward_only.defjvp
def _(primals, tangents):
    (x,), (v,) = primals, tangents
    return _forward_only(x), jnp.vdot(jnp.linalg.eigh(jnp.outer(x, x))[1][0], v)


def _called_back(x):
    return jnp.sum(jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"))


def _printed(x):
    jax.debug.callback(lambda _: None, x)
    return jnp.sum(x)


FREE = {
    "matrix product": lambda x: jnp.sum((x[:, None] @ x[None]) ** 2),
    "loops": lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.where(y > 0, jnp.sin(y), jnp.sort(y)), x)[0],
    "random": lambda x: jnp.sum(x * jax.random.normal(jax.random.key(0), (2,), x.dtype)),
    "scan and cond": lambda x: jax.lax.cond(x[0] > 0, lambda: jnp.cumsum(x)[1], lambda: jax.nn.softplus(x[0])),
    "second derivative": lambda x: jnp.sum(jax.hessian(lambda y: jax.nn.logsumexp(y**2))(x)),
    "convolution": lambda x: jnp.sum(jnp.convolve(x, x)),
    "loop of equinox": lambda x: eqx.internal.while_loop(lambda y: y[0] < 3, lambda y: y + 1, x, kind="lax")[0],
}
ALONE = {
    "svd": lambda x: jnp.linalg.norm(jnp.outer(x, x), 2),
    "inside a loop": lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.linalg.solve(jnp.eye(2), y), x)[0],
    "in a derivative": jax.grad(_backward_only),
    "in a tangent": lambda x: jax.jvp(_forward_only, (x,), (x,))[1],
    "callback": _called_back,
    "debugging": _printed,
    "determinant": lambda x: jnp.linalg.slogdet(jnp.kron(jnp.eye(3), jnp.outer(x, x)))[1],
    "foreign": lambda x: jax.ffi.ffi_call("nobody_knows", jax.ShapeDtypeStruct((2,), x.dtype))(x),
}


@pytest.mark.parametrize("name", [*FREE, *ALONE])
def test_what_calls_linear_algebra_or_nobody_knows_what_runs_alone(name):
    fn, alone = (FREE | ALONE)[name], name in ALONE
    trace = jax.make_jaxpr(jax.vmap(fn) if fn is not ALONE["foreign"] else fn)
    equations = _guard.all_equations(trace(jnp.ones((3, 2) if fn is not ALONE["foreign"] else 2)))
    assert _guard.runs_alone(equations) == alone


def _whitened(theta, step_size):
    del step_size
    return jnp.linalg.qr(jnp.eye(2, dtype=theta.dtype) + jnp.outer(theta, theta))[0] @ theta


_SCALED = DESCENT._replace(step=lambda loss, theta, step_size: theta * step_size)  # noqa: ARG005


class _Drawn(eqx.Module):
    num_points: int = eqx.field(static=True, default=8)

    def __call__(self, indices, group=0):
        del group
        root = jnp.linalg.cholesky(jnp.eye(2))
        return jnp.stack([indices, indices], axis=1).astype(root.dtype) @ root


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        ({}, False),
        ({"rule": gd.from_optax(lambda s: optax.contrib.galore(s, rank=1)), "points": np.ones((8, 2, 2))}, True),
        ({"rule": DESCENT._replace(init=_whitened)}, True),
        ({"loss": _backward_only}, True),
        ({"loss": _forward_only}, True),
        ({"points": _Drawn()}, True),
        ({"loss": _called_back, "rule": _SCALED}, True),
        ({"loss": _backward_only, "rule": _SCALED}, False),
        ({"loss": _backward_only, "rule": _SCALED, "stop": StoppingRule(grad_tol=1e-3)}, True),
    ],
)
def test_the_engine_sees_all_that_runs(change, alone):
    """Rule, derivatives, sources: traced, nothing is compiled."""
    sphere = lambda x: jnp.sum(x**2)  # noqa: E731
    given = {"rule": DESCENT, "loss": sphere, "points": np.ones((8, 2)), "stop": StoppingRule()} | change
    job, _ = ensembles._job(
        given["rule"], given["loss"], given["points"], 0.1, given["stop"], True, (), None, ensembles.TILE, None, None
    )
    job.pool.shutdown()
    assert job.alone == alone
    assert (job.pool._max_workers == 1) == alone


GALORE = """
import threading, numpy as np, jax.numpy as jnp, optax.contrib, gdstab as gd
T = np.random.default_rng(0).standard_normal((101, 12, 12)).astype(np.float32)
rule = gd.from_optax(lambda s: optax.contrib.galore(s, rank=2, update_proj_gap=2))
loss = lambda W: 0.5 * jnp.sum((W - T[0]) ** 2)
tiles = gd.ensembles.iter_run(rule, loss, T[1:], 0.01, gd.StoppingRule(max_steps=60), tile=50, keep=("theta",))
for tile in tiles:  # what the caller does meanwhile calls LAPACK too
    gd.ensembles.map_points(lambda W: jnp.linalg.svd(W)[1], tile.theta)
others = [threading.Thread(target=gd.ensembles.map_points, args=(jnp.linalg.eigvalsh, T)) for _ in range(3)]
[other.start() for other in others], [other.join() for other in others]
"""


@pytest.mark.slow
def test_linear_algebra_in_rules_tiles_and_threads_ends():
    subprocess.run([sys.executable, "-c", GALORE], timeout=300, check=True)


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_fork_of_a_process_that_has_used_jax_is_refused():
    jnp.ones(1).block_until_ready()
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (_guard.refuse_forked, functools.partial(_compiling.Use, product, is_number)):
            try:
                call()
            except RuntimeError as error:
                refused += "spawn" in str(error)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    _guard.refuse_forked()


#
# One check of all entry points
#

ENTRIES = {
    "run": lambda loss, theta: gd.run(DESCENT, loss, _many(theta), 0.1, StoppingRule()),
    "settle": lambda loss, theta: gd.settle(DESCENT, loss, theta, 0.1, StoppingRule()),
    "sharpness": gd.curvature.sharpness,
    "extremes": gd.curvature.extreme_eigenvalues,
    "inertia": gd.curvature.inertia,
    "classify": gd.stability.classify,
    "threshold": gd.stability.threshold,
    "threshold_of": lambda loss, theta: gd.stability.threshold_of(DESCENT, loss, theta, 0.1, 1.0),
    "extend": lambda loss, theta: gd.stability.extend(DESCENT, loss, theta, 0.1),
    "find_cycle": lambda loss, theta: gd.orbits.find_cycle(DESCENT, loss, theta, 0.1),
    "refine": lambda loss, theta: gd.orbits.refine(DESCENT, loss, theta, 0.1, 1),
    "flow": lambda loss, theta: gd.flow.gradient_flow(loss, theta, 1.0),
    "deviation": lambda loss, theta: gd.flow.deviation(loss, theta, 0.1, 1.0),
    "orbit_diagram": lambda loss, theta: gd.bifurcation.orbit_diagram(
        DESCENT, loss, [0.1], _many(theta), transient=2, kept=2
    ),
    "largest": lambda loss, theta: gd.lyapunov.largest(DESCENT, loss, theta, 0.1, 100),
}
NETWORK = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
WRONG = {
    "integers": ({"a": np.array([1, 2])}, "int64 at"),
    "complex": ({"a": np.array([1j, 2])}, "complex128"),
    "half": ({"a": np.ones(2, np.float16)}, "32 or 64 bits"),
    "brain": ({"a": jnp.ones(2, jnp.bfloat16)}, "32 or 64 bits"),
    "network": (NETWORK, "eqx.partition"),
    "nothing": ({"a": np.zeros(0)}, "at least one entry"),
    "text": ({"a": "one"}, "str 'one'"),
}


def _many(theta):
    return jax.tree.map(lambda leaf: np.stack([leaf] * 2) if hasattr(leaf, "shape") else leaf, theta)


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_parameter_is_refused_in_a_line_by_all(kind):
    theta, words = WRONG[kind]
    for name, call in ENTRIES.items():
        if kind in {"text", "network"} and name in {"run", "orbit_diagram"}:
            continue  # their leading axis is asked first
        with pytest.raises(ValueError, match=words) as refused:
            call(lambda t: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(t)), theta)
        assert "\n" not in str(refused.value), name
        assert len(str(refused.value)) < 300, name


@pytest.mark.parametrize(
    "theta",
    [
        {"a": 0.5, "b": 1.5},
        [0.5, 1.5],
        {"a": np.float64(0.5), "b": np.ones(1, ">f8")},
        {"a": np.ones(1, ">f4"), "none": None, "empty": np.zeros((0, 2), np.float32)},
    ],
)
def test_numbers_of_python_numpy_and_other_byte_orders_are_parameters(theta):
    made = _validate.check_loss(lambda t: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(t)), theta)
    assert all(jnp.asarray(leaf).dtype == leaf.dtype for leaf in jax.tree.leaves(made))
    assert jax.tree.structure(made) == jax.tree.structure(theta)
    np.testing.assert_array_equal(*(np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (made, theta)))


@pytest.mark.parametrize(
    "loss",
    [Plain(), Slotted(), Mutable().method, functools.partial(_scale, [1.0]), Module([jnp.array(1.0)], {"target": 1.0}),
     jax.jit(product), eqx.filter_jit(product), Module([1], {"target": 1.0}).__call__],
)  # fmt: skip
def test_whatever_can_be_called_is_a_loss(loss):
    _validate.check_loss(loss, jnp.ones(2))
    assert ensembles.map_points(loss, POINTS).tolist() == [0.0625, 64.0]


def test_leaves_of_no_size_and_big_endian_points():
    theta = {"w": POINTS.astype(">f8"), "bias": np.zeros((2, 0)), "none": None}
    found = gd.run(DESCENT, lambda t: product(t["w"]), theta, 0.3, StoppingRule())
    assert found.outcome.tolist() == [Outcome.CONVERGED, Outcome.DIVERGED]
    assert found.theta["bias"].shape == (2, 0)


def test_a_result_too_large_for_memory_says_what_to_do(monkeypatch):
    def full(*_, **__):
        raise MemoryError("Unable to allocate 1. PiB")
        yield

    monkeypatch.setattr(ensembles, "iter_run", full)
    with pytest.raises(MemoryError, match=r"2 lanes.*keep=\(\).*iter_run"):
        gd.run(DESCENT, product, POINTS, 0.3, StoppingRule())


#
# Numbers
#


@pytest.mark.parametrize("eight", [8, 8.0, np.int64(8), np.uint8(8), np.float32(8), np.array(8), jnp.array(8)])
def test_whole_numbers_of_any_kind(eight):
    stop = StoppingRule(loss_tol=eight, escape_radius=eight, max_steps=eight, max_period=eight, cycle_tol=eight)
    assert [type(value) for value in (stop.max_steps, stop.max_period)] == [int, int]
    assert [type(value) for value in (stop.loss_tol, stop.escape_radius, stop.cycle_tol)] == [float] * 3
    assert stop == StoppingRule(8.0, None, 8.0, 8, 8, 8.0)
    made = [
        _validate.check_count(eight, "num"),
        gd.losses.ScalarProduct(depth=eight).depth,
        gd.sampling.GridSource(((0, 1),), eight).num_points,
    ]
    assert made == [8] * 3
    assert {type(value) for value in made} == {int}


@pytest.mark.parametrize("wrong", [8.5, "8", True, np.array([8, 8]), None, np.nan, 1j])
def test_what_is_no_whole_number_is_refused_when_it_comes(wrong):
    with pytest.raises(ValueError, match="max_steps"):
        StoppingRule(max_steps=wrong)
    with pytest.raises(ValueError, match="expected an integer"):
        _validate.check_count(wrong, "num")


@pytest.mark.parametrize("name", ["loss_tol", "grad_tol", "cycle_tol", "escape_radius"])
@pytest.mark.parametrize("wrong", ["1e-3", np.nan, -1.0, True, 1j])
def test_tolerances_that_are_no_numbers_are_refused(name, wrong):
    with pytest.raises(ValueError, match=name):
        StoppingRule(**{name: wrong})
