"""Exact Hessian spectra of many points of a 12-parameter linear network (2-2-2-2), four ways; run from the root.

    python benchmarks/bench_curvature.py [--points 100000] [--dtype float64]

One call of `ensembles.map_points`; a Python loop over points with a jitted function (on a subsample, per point);
batched Hessians and NumPy's batched `eigvalsh`; and, for the eigenvalues alone, `vmap` of LAPACK against a parallel
cyclic Jacobi method with the batch on the trailing axis, the candidate that `curvature` rejected. Rows go to
`benchmarks/results/curvature.jsonl`: first call apart from the steady state, and the answer computed.
"""

import argparse
import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gdstab import curvature, ensembles
from gdstab.losses import LinearNetwork

N = 12
RESULTS = pathlib.Path(__file__).parent / "results" / "curvature.jsonl"


def network_spectrum():
    """Build the loss on flat vectors, and the function that gives its eigenvalues at one point."""
    dtype = jnp.result_type(float)
    network = LinearNetwork(jnp.eye(2, dtype=dtype), jnp.array([[1.0, 0.3], [0.0, 2.0]], dtype), scale=0.5)

    def loss(theta):
        return network(tuple(theta.reshape(3, 2, 2)))

    return loss, lambda theta: curvature.eigenvalues(loss, theta)


def measure(fn, *args, repeats):
    """First call and quartiles of the following ones, in seconds, and the answer."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        answer = jax.block_until_ready(fn(*args))
        times.append(time.perf_counter() - start)
    low, median, high = np.quantile(times[1:], (0.25, 0.5, 0.75)).tolist()
    return {"first_call": times[0], "median": median, "quartiles": [low, high]}, np.asarray(answer)


def jacobi(A, sweeps):
    """Eigenvalues of A [n, n, batch], n even, by rotations in n/2 planes at once (Brent and Luk 1985), round robin."""
    n, m = A.shape[0], A.shape[0] // 2
    along = jnp.arange(m)

    def cycle(first, second, axis):
        """Players of a round robin: the first stays, the others move on by one seat."""
        cut = lambda x, *span: lax.slice_in_dim(x, *span, axis=axis)  # noqa: E731
        parts = [cut(first, 0, 1), cut(second, 0, 1), cut(first, 1, m - 1), cut(second, 1, m), cut(first, m - 1, m)]
        return jnp.concatenate(parts, axis)

    def rotate(_, A):
        P, Q = A[:m], A[m:]
        pp, pq, qq = P[along, along], P[along, along + m], Q[along, along + m]
        tau = (qq - pp) / (2 * jnp.where(pq == 0, 1, pq))
        tangent = jnp.where(pq == 0, 0, jnp.where(tau >= 0, 1, -1) / (jnp.abs(tau) + jnp.sqrt(1 + tau**2)))
        c = 1 / jnp.sqrt(1 + tangent**2)
        s = tangent * c
        A = jnp.concatenate([c[:, None] * P - s[:, None] * Q, s[:, None] * P + c[:, None] * Q])
        P, Q = A[:, :m], A[:, m:]
        P, Q = c * P - s * Q, s * P + c * Q
        A = cycle(P, Q, 1)
        return cycle(A[:m], A[m:], 0)

    A = lax.fori_loop(0, sweeps * (n - 1), rotate, A)
    return jnp.sort(A[jnp.arange(n), jnp.arange(n)], axis=0)


def eigensolver_rows(hessians, repeats):
    """The eigenvalues alone: LAPACK under vmap, NumPy, Jacobi."""
    # Blocks of 256 matrices stay in cache; the transposition is not timed, in favour of Jacobi.
    whole = len(hessians) // 256 * 256
    blocks = jnp.asarray(np.moveaxis(hessians[:whole].reshape(-1, 256, N, N), 1, -1))
    sweeps = 7 if hessians.dtype == np.float64 else 6
    expected = np.linalg.eigvalsh(hessians.astype(np.float64))[:whole]
    ways = {
        "eigenvalues: vmap(eigvalsh)": (jax.jit(jax.vmap(jnp.linalg.eigvalsh)), jnp.asarray(hessians[:whole])),
        "eigenvalues: numpy eigvalsh": (np.linalg.eigvalsh, hessians[:whole]),
        f"eigenvalues: jacobi, {sweeps} sweeps": (jax.jit(lambda A: lax.map(lambda a: jacobi(a, sweeps), A)), blocks),
    }
    for way, (fn, argument) in ways.items():
        timing, values = measure(fn, argument, repeats=repeats)
        values = np.moveaxis(values, 1, -1).reshape(-1, N) if values.ndim == 3 else values
        error = float(np.max(np.abs(values - expected) / np.abs(expected).max(axis=1, keepdims=True)))
        yield {"way": way, "points": whole, **timing, "relative_error": error}


def rows(num_points, repeats, loop_points):
    """Time every way; the answers are compared with NumPy's in float64."""
    dtype = jnp.result_type(float)
    points = np.random.default_rng(0).normal(size=(num_points, N)).astype(dtype)
    loss, spectrum = network_spectrum()
    batched_hessian = jax.jit(jax.vmap(jax.hessian(loss)))
    one = jax.jit(spectrum)
    hessians = np.asarray(batched_hessian(points))
    expected = np.linalg.eigvalsh(hessians.astype(np.float64))

    ways = {
        "map_points, one call": (lambda x: ensembles.map_points(spectrum, x), points),
        "python loop, jitted": (lambda x: np.stack([one(theta) for theta in x]), points[:loop_points]),
        "vmap(hessian), numpy eigvalsh": (lambda x: np.linalg.eigvalsh(np.asarray(batched_hessian(x))), points),
    }
    for way, (fn, argument) in ways.items():
        timing, values = measure(fn, argument, repeats=repeats)
        yield {
            "way": way,
            "points": len(argument),
            **timing,
            "sum_of_sharpness": float(values[:, -1].astype(np.float64).sum()),
            "max_difference": float(np.abs(values - expected[: len(values)]).max()),
        }
    yield from eigensolver_rows(hessians, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--loop-points", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    machine = {
        "dtype": options.dtype,
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }
    with RESULTS.open("a") as file:
        for row in rows(options.points, options.repeats, options.loop_points):
            row["microseconds_per_point"] = 1e6 * row["median"] / row["points"]
            print(
                f"{row['way']:32s} first {row['first_call']:6.2f} s, then {row['microseconds_per_point']:8.2f} us/point"
            )
            file.write(json.dumps({"benchmark": "curvature", **row, **machine}) + "\n")


if __name__ == "__main__":
    main()
