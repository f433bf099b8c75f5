"""Edges along segments against the exact ellipse; orbits on an edge, and the edge states that they end on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdstab import boundaries
from gdstab.losses import DoubleWell, ScalarProduct
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import scalar
from gdstab.updates import from_optax, gradient_descent

LOSS = ScalarProduct(depth=2, target=1.0, scale=1.0)
WELLS = DoubleWell()
STOP = StoppingRule(grad_tol=1e-10, max_steps=20_000)
RULE = gradient_descent()
HEAVY_BALL = from_optax(lambda size: optax.sgd(size, momentum=0.5))
BATCH = 2048


def side(theta):
    return (theta[0] > 0).astype(int)


def above(points):
    """Two classes along the first axis, 7 below a third and 9 from there on, without an orbit."""
    return np.where(np.asarray(points)[:, 0] < 1 / 3, 7, 9)


def spokes(num, start=(0.9, 1.05), length=5.0):
    angle = np.linspace(0, 2 * np.pi, num, endpoint=False) + 0.01
    ends = length * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.broadcast_to(start, ends.shape), ends


@pytest.fixture(scope="module")
def classify():
    return boundaries.Classifier(RULE, LOSS, 0.3, STOP, batch=BATCH)


def test_edges_lie_on_the_exact_ellipse(classify):
    edges = boundaries.bisect_edge(classify, *spokes(1000))
    assert edges.found.all()
    k = 2 * 0.3
    x, y = edges.points.T
    np.testing.assert_allclose(x * x + y * y - k * x * y, (4 - k * k) / k, rtol=1e-13)
    assert edges.width.max() < 4 * np.finfo(float).eps
    assert (edges.class_a == Outcome.CONVERGED).all()
    assert (edges.class_b == Outcome.DIVERGED).all()
    assert edges.rounds < 60


def test_the_ends_are_of_the_classes_they_claim(classify):
    edges = boundaries.bisect_edge(classify, *spokes(100), tol=1e-3)
    np.testing.assert_array_equal(classify(edges.a), edges.class_a)
    np.testing.assert_array_equal(classify(edges.b), edges.class_b)
    assert 0.4e-3 < edges.width.max() <= 1e-3
    inside = scalar.trapping_energy(edges.a, 0.3, 1.0, 1.0), scalar.trapping_energy(edges.b, 0.3, 1.0, 1.0)
    assert inside[0].max() < 0 < inside[1].min()


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_parts_change_the_calls_and_not_the_edge(parts):
    calls = []
    edges = boundaries.bisect_edge(lambda points: calls.append(1) or above(points), [[0.0]], [[1.0]], parts=parts)
    assert edges.a[0, 0] < 1 / 3 <= edges.b[0, 0]
    assert np.nextafter(edges.a[0, 0], 1) == edges.b[0, 0]
    assert edges.rounds == len(calls) - 1
    assert edges.rounds <= np.ceil(53 / np.log2(parts)) + 1


def test_segments_without_an_edge_are_flagged_and_left_alone():
    a, b = [[0.0, 5.0], [0.1, 5.0], [0.9, 1.0]], [[1.0, 5.0], [0.2, 5.0], [0.4, 2.0]]
    edges = boundaries.bisect_edge(above, a, b)
    assert edges.found.tolist() == [True, False, False]
    np.testing.assert_array_equal(edges.a[1:], a[1:])
    np.testing.assert_array_equal(edges.b[1:], b[1:])
    assert edges.class_a.tolist() == [7, 7, 9]
    assert np.isnan(edges.points[1:]).all()
    assert edges.points[0] == pytest.approx([1 / 3, 5], rel=1e-15)


def test_of_three_classes_the_first_edge_of_the_near_end_is_found():
    stairs = lambda points: np.searchsorted([0.2, 0.7], points[:, 0], side="right")  # noqa: E731
    edges = boundaries.bisect_edge(stairs, [[0.0], [1.0]], [[1.0], [0.0]], parts=8)
    np.testing.assert_allclose(edges.points[:, 0], [0.2, 0.7], rtol=1e-15)
    assert np.stack([edges.class_a, edges.class_b], axis=1).tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_edge_at_the_origin_ends_at_the_size_of_the_segment(dtype):
    a, b = np.array([[-1.0, 3.0]], dtype), np.array([[2.0, 3.0]], dtype)
    edges = boundaries.bisect_edge(lambda points: (points[:, 0] > 0).astype(int), a, b)
    assert edges.points.dtype == dtype
    assert 0 < edges.width[0] <= 4 * np.finfo(dtype).eps
    assert edges.a[0, 0] <= 0 < edges.b[0, 0]


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([0.0], [1.0], {}, "finite ends"),
        ([[0.0]], [[np.inf]], {}, "finite ends"),
        ([[0.0]], [[1.0], [2.0]], {}, "as many ends"),
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, "finite ends"),
        (np.zeros((1, 1), np.float32), np.ones((1, 1)), {}, "one dtype"),
        ([[0.0]], [[1.0]], {"tol": -1.0}, "tol"),
        ([[0.0]], [[1.0]], {"tol": np.nan}, "tol"),
        ([[0.0]], [[1.0]], {"parts": 1}, "parts"),
    ],
)
def test_bad_segments_are_refused(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        boundaries.bisect_edge(above, a, b, **options)


def test_an_orbit_on_the_ellipse_stays_there():
    """Its energy is zero for ever; one orbit run forward in floats leaves it within thirty updates."""
    orbit = boundaries.track_edge(RULE, LOSS, 0.3, *spokes(8), stopping=STOP, num_steps=60, batch=BATCH)
    assert orbit.theta.shape == (61, 8, 2)
    assert (orbit.lost == -1).all()
    assert (orbit.bisections > 2).all()
    energy = scalar.trapping_energy(orbit.theta, 0.3, 1.0, 1.0)
    assert np.abs(energy).max() < 20 * orbit.apart.max()
    assert (orbit.width <= orbit.apart).all()
    assert orbit.classes.tolist() == [[Outcome.CONVERGED, Outcome.DIVERGED]] * 8
    # It is an orbit but for the jumps.
    next_ = jax.vmap(jax.vmap(lambda theta: RULE.step(LOSS, theta, 0.3)))(jnp.asarray(orbit.theta[:-1]))
    assert np.abs(next_ - orbit.theta[1:]).max() < 10 * orbit.apart.max()
    assert not orbit.settled().any()  # on the ellipse it is chaotic


@pytest.mark.parametrize(
    "rule", [pytest.param(RULE, id="descent", marks=pytest.mark.slow), pytest.param(HEAVY_BALL, id="heavy_ball")]
)
def test_the_edge_state_between_two_wells_is_the_saddle(rule):
    a, b = [[-0.7, 0.5], [-0.31, -1.0]], [[0.4, 0.5], [0.9, -1.0]]
    stopping = StoppingRule(loss_tol=1e-10)
    orbit = boundaries.track_edge(rule, WELLS, 0.1, a, b, stopping=stopping, label=side, num_steps=150, batch=BATCH)
    np.testing.assert_allclose(orbit.theta[-1], 0, atol=1e-6)
    assert orbit.settled().tolist() == [1, 1]
    assert np.abs(orbit.theta[:, :, 0]).max() < 2 * orbit.apart.max()  # the edge is the axis
    assert boundaries.label_of(orbit.classes).tolist() == [[0, 1], [0, 1]]
    assert (orbit.bisections >= 1).all()


def test_segments_without_an_edge_have_no_orbit():
    a, b = [[-0.7, 0.5], [0.3, 0.5]], [[0.4, 0.5], [0.9, 0.5]]
    stopping = StoppingRule(loss_tol=1e-10)
    orbit = boundaries.track_edge(RULE, WELLS, 0.1, a, b, stopping=stopping, label=side, num_steps=10, batch=BATCH)
    assert orbit.found.tolist() == [True, False]
    assert np.isfinite(orbit.theta[:, 0]).all()
    assert np.isnan(orbit.theta[:, 1]).all()
    assert orbit.bisections[1] == 0
    none = boundaries.track_edge(RULE, WELLS, 0.1, a[1:], b[1:], stopping=stopping, label=side, batch=BATCH)
    assert np.isnan(none.theta).all()


def test_an_edge_that_is_no_edge_of_the_map_is_lost():
    """Six updates decide little: what is undecided then and leaves in the next six is no side of an edge."""
    stopping = StoppingRule(max_steps=6, escape_radius=50.0)
    a, b = [[0.5, 1.4]], [[5.0, -4.0]]
    orbit = boundaries.track_edge(RULE, LOSS, 0.3, a, b, stopping=stopping, num_steps=40, apart=1e-3, batch=BATCH)
    assert orbit.found.all()
    assert 0 < orbit.lost[0] < 40
    assert len(orbit.theta) == orbit.lost[0] + 1
    assert np.isfinite(orbit.theta[:-1]).all()
    assert np.isnan(orbit.theta[-1]).all()
    assert orbit.settled().tolist() == [0]


def test_the_period_of_an_edge_state():
    def path(*values):
        theta = np.array(values, float).reshape(-1, 1, 1)
        one = np.ones(1, int)
        return boundaries.EdgeOrbits(
            theta=theta, width=np.zeros(theta.shape[:2]), apart=np.array([1e-3]), bisections=one,
            classes=np.zeros((1, 2), np.int16), found=one > 0, lost=-one,
        )  # fmt: skip

    assert path(9, 0, 1, 2, 0, 1, 2, 0).settled().tolist() == [3]
    assert path(9, 1, 1.0001, 1.0002).settled().tolist() == [1]
    assert path(9, 1, 2, 1.0001).settled().tolist() == [0]
    assert path(9, 1, 2, 1.0001, 2).settled().tolist() == [2]
    assert path(1, 2, 3, 4, 5, 6).settled().tolist() == [0]
    assert path(0, 1, 2, 0, 1, 2, 0).settled(max_period=2).tolist() == [0]
    assert path(1, 1.1, 1.2, 1.3).settled(tol=0.2).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": from_optax(optax.adam)}, "counters"),
        ({"rule": from_optax(optax.sgd, autonomous=False)}, "autonomous"),
        ({"a": [[0.0, np.nan]]}, "finite ends"),
        ({"b": [[0.0]]}, "as many ends"),
        ({"num_steps": -1}, "num_steps"),
        ({"apart": 0.0}, "apart"),
        ({"step_size": 0.0}, "positive"),
        ({"step_size": [0.1, 0.2]}, "one step size"),
        ({"loss": lambda theta: theta}, "scalar"),
    ],
)
def test_bad_edges_are_refused(change, message):
    arguments = {"rule": RULE, "loss": WELLS, "step_size": 0.1, "a": [[-1.0, 0.0]], "b": [[1.0, 0.0]]} | change
    with pytest.raises(ValueError, match=message):
        boundaries.track_edge(**arguments, stopping=STOP, label=side, batch=BATCH)
