"""What may not run twice at once, nor in a process that was forked: such calls would wait for ever.

jaxlib's batched LAPACK kernels share one thread pool on the CPU, and two of them running at once wait for each other
(seen in 0.10.2). What a compiled function calls is read off the trace of all that it does. A primitive that is not
known to be free of such calls (a callback to Python, a foreign function, one of a later version) is taken for one that
is not. A forked process has none of the threads that its parent's JAX waits for.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import jax
from jax.extend.core import primitives

_LAPACK = frozenset({
    "cholesky", "cholesky_update", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "ormqr",
    "qr", "schur", "svd", "triangular_solve", "tridiagonal", "tridiagonal_solve",
})  # fmt: skip
_NAMED = {value.name for name, value in vars(primitives).items() if name.endswith("_p")}
_MORE = {
    "checkpoint", "copy_p", "core_call", "custom_vjp_call_jaxpr", "custom_vmap_call", "debug_print", "erf_inv",
    "lu_pivots_to_permutation", "maybe_set", "mulhi", "nonbatchable", "nondifferentiable", "nondifferentiable_backward",
    "optimization_barrier", "pjit", "platform_index", "pvary", "random_unwrap", "random_wrap", "remat",
    "run_state", "scatter-sub", "scatter_sub", "select_if_vmap", "split", "stack", "symmetric_product", "tile",
    "unstack", "unvmap_all", "unvmap_any", "unvmap_max",
}  # fmt: skip
_FREE = (_NAMED | _MORE) - _LAPACK

_ONE_AT_A_TIME = threading.RLock()


def all_equations(jaxpr) -> list:
    """The primitive operations of a trace, those of inner functions, loops and branches included."""

    def inside(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for part in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
                if _is_jaxpr(part):
                    yield from inside(getattr(part, "jaxpr", part))

    return list(inside(getattr(jaxpr, "jaxpr", jaxpr)))


def _is_jaxpr(part) -> bool:
    return hasattr(part, "eqns") or hasattr(part, "jaxpr")


def runs_alone(equations: list) -> bool:
    """Whether a function must have the CPU to itself: it calls LAPACK, or something of which nobody can tell."""
    return any(equation.primitive.name not in _FREE for equation in equations)


@contextlib.contextmanager
def turn(alone: bool) -> Iterator[None]:
    """While what must run alone runs, whichever thread it is called from."""
    if not alone:
        yield
        return
    with _ONE_AT_A_TIME:
        yield


_FORKED = False


def _note_fork() -> None:
    global _FORKED, _ONE_AT_A_TIME  # noqa: PLW0603 (the child of a fork has globals of its own)
    bridge = sys.modules.get("jax._src.xla_bridge")
    _FORKED = _FORKED or bool(getattr(bridge, "_backends", None))
    _ONE_AT_A_TIME = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def refuse_forked() -> None:
    """An error in a process that was forked after JAX had been used in its parent.

    Raises
    ------
    RuntimeError
        There, because it would hang.
    """
    if _FORKED:
        raise RuntimeError(
            "expected a process of its own, got one forked after JAX was used, which would wait for ever: start "
            "workers by multiprocessing.get_context('spawn'), or fork before the first array is made"
        )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
