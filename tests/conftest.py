"""Strict JAX, double precision, and keys that differ per test but never per run."""

import importlib.util
import zlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from matplotlib.figure import Figure

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

if importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    install_import_hook("gdstab", "typechecks.lazily")

from gdstab import _compiling, _staging  # noqa: E402 (the hook is in place)


def pytest_configure(config):
    """The next run finds what took long to compile, and takes two thirds of the time; keeping all costs more."""
    jax.config.update("jax_compilation_cache_dir", str(config.rootpath / ".pytest_cache" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


_compiled_quickly = [False]  # one module after the other


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request):
    """Most of the time goes into compilation, and a quarter of it into optimising what runs once.

    Modules marked `optimised` hold what the optimised code alone does: which bits do not depend on blocks, where chaos
    leads. They compile what they need as users do, and so do doctests, notebooks and slow tests.
    """
    asked = request.node.get_closest_marker("optimised") is None and request.config.option.markexpr == "not slow"
    quickly = asked and jax.default_backend() == "cpu"
    if _compiled_quickly[-1] and not quickly:
        for forget in (jax.clear_caches, _compiling.forget, _staging.forget):
            forget()
    _compiled_quickly.append(quickly)
    jax.config.update("jax_disable_most_optimizations", quickly)


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


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are made, but not turned into pixels: that takes a second each, and is seen elsewhere."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(b"not rendered"))


_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def process_as_it_was(tmp_path, monkeypatch):
    """A command sets JAX up for its own process, and writes below the folder it is in: put that back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it keeps the first directory that it was given
