"""Strict JAX, double precision, and keys that differ per test but never per run."""

import importlib.util
import zlib

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

if importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("gdstab", "beartype.beartype")


@pytest.fixture
def key(request):
    """A key that differs per test, never per run."""
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def rng(request):
    """A NumPy generator that differs per test, never per run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def assert_close(actual, expected, *, factor=10.0):
    """Compare at `factor * sqrt(eps)` of the dtype at hand."""
    tol = factor * np.sqrt(np.finfo(np.asarray(actual).dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=tol, atol=tol)
