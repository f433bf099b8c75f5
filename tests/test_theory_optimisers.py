"""Closed forms of optimisers against the roots and spectra of their linear maps, built here by hand."""

import numpy as np
import pytest

from gdstab.theory import optimisers

MAPS = {  # (beta, x = eta lambda, y = eta w) -> matrix on (theta, momentum), or on theta
    "descent": lambda _, x, y: [[1 - x - y]],
    "heavy-ball": lambda b, x, y: [[1 - x - y, -b], [x + y, b]],  # momentum in units of eta m
    "nesterov": lambda b, x, y: [[1 - (1 + b) * (x + y), -b * b], [x + y, b]],
    "adam": lambda b, x, _: [[1 - (1 - b) * x, -b], [(1 - b) * x, b]],
    "adamw": lambda b, x, y: [[1 - y - (1 - b) * x, -b], [(1 - b) * x, b]],
}


@pytest.mark.parametrize("rule", MAPS)
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_multipliers_are_the_eigenvalues_of_the_map(rule, beta, rng):
    decay = 0.0 if rule == "adam" else 0.4
    for eta, curvature in rng.uniform(0.05, 2, size=(5, 2)):
        found = optimisers.multipliers(rule, eta, curvature, beta=beta, weight_decay=decay)
        expected = np.linalg.eigvals(np.array(MAPS[rule](beta, eta * curvature, eta * decay)))
        # Nearly equal eigenvalues are known to the root of rounding only.
        np.testing.assert_allclose(np.poly(found), np.poly(expected), atol=1e-12)


@pytest.mark.parametrize("rule", optimisers.KNOWN)
def test_the_threshold_is_where_the_spectral_radius_passes_one(rule):
    beta, decay = 0.7, 0.4 if rule in {"descent", "heavy-ball", "nesterov", "adamw"} else 0.0
    curvature = np.array([0.5, 2.0, 40.0])
    limit = optimisers.threshold(rule, curvature, beta=beta, weight_decay=decay)
    for factor, stable in ((0.02, True), (0.5, True), (0.999, True), (1.001, False), (1.5, False)):
        values = optimisers.multipliers(rule, factor * limit, curvature, beta=beta, weight_decay=decay)
        assert ((np.abs(values).max(axis=-1) < 1) == stable).all()
    at_limit = optimisers.multipliers(rule, limit, curvature, beta=beta, weight_decay=decay)
    np.testing.assert_allclose(np.abs(at_limit + 1).min(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(optimisers.critical_curvature(rule, limit, beta=beta, weight_decay=decay), curvature)


def test_known_limits():
    assert optimisers.threshold("adam", 1.0) == pytest.approx(38)
    assert optimisers.threshold("heavy-ball", 0.0) == np.inf
    assert np.isnan(optimisers.threshold("heavy-ball", -1.0))
    assert optimisers.threshold("heavy-ball", -1.0, weight_decay=2.0) == pytest.approx(3.8)
    assert optimisers.threshold("adamw", 1.0, beta=0.0, weight_decay=1.0) == 1.0
    for rule in optimisers.MOMENTUM:
        assert optimisers.threshold(rule, 3.0, beta=0.0) == optimisers.threshold("descent", 3.0)


def test_preconditioners():
    np.testing.assert_allclose(optimisers.preconditioner("adagrad", [4.0], 5.0), [3.0])
    np.testing.assert_allclose(optimisers.preconditioner("heavy-ball", [4.0], 5.0), [1.0])
    assert optimisers.preconditioner("adam", np.ones(2, np.float32), 1e-8).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "sign"}, "jump"),
        ({"rule": "lion"}, "jump"),
        ({"rule": "nonsense"}, "expected one of"),
        ({"rule": "heavy-ball", "beta": 1.0}, "beta"),
        ({"rule": "heavy-ball", "weight_decay": -1.0}, "weight_decay"),
        ({"rule": "adam", "weight_decay": 0.1}, "merely shift"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimisers.threshold(curvature=1.0, **arguments)
