"""Exact risk and gradient of shallow ReLU networks: evaluations per second, and descent in the engine, against N.

    python benchmarks/bench_relu.py [--only evaluations engine] [--dtype float64] [--neurons 2 4 8 16] [--lanes 65536]

The job: standard normal networks, target f(x) = x on [0, 1], loss and gradient of each. Beside `ShallowReLU`: Gauss and
Legendre's rule on the whole interval by JAX, with 32 and 256 nodes, whose errors are recorded, and a closed form by
hand in Numba (breakpoints sorted, prefix sums). All ways use all cores. Errors are the largest over networks, relative
to the loss plus the integral of f^2, and to the largest entry of the gradient plus 1, against float64 by `theory`.
Engine: every lane runs the same number of updates. Rows go to `benchmarks/results/relu.jsonl`, power laws in N as rows
of their own.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import measuring
import numba
import numpy as np

import gdstab as gd
from gdstab.records import available_cores
from gdstab.theory import relu

jax.config.update("jax_enable_x64", True)

NODES = 32, 256
UPDATES = 200
NEVER = gd.StoppingRule(loss_tol=None, escape_radius=1e6, max_steps=UPDATES)


def networks(neurons: int, lanes: int, dtype: str) -> np.ndarray:
    """Standard normal parameters [lanes, 3N + 1]."""
    return np.random.default_rng(0).normal(size=(lanes, 3 * neurons + 1)).astype(dtype)


def closed_form(neurons: int):
    """`ShallowReLU` with the lanes on the trailing axis, blocks [blocks, 128, 3N + 1] that stay in cache."""
    loss = gd.losses.ShallowReLU(neurons)

    @jax.jit
    def evaluate(blocks):
        values, slopes = jax.lax.map(lambda block: (loss.on_lanes(block.T), loss.gradient(block.T).T), blocks)
        return values.reshape(-1), slopes.reshape(-1, slopes.shape[-1])

    return evaluate


def on_all_cores(evaluate, points: np.ndarray) -> list[np.ndarray]:
    """Share the blocks among threads, one a core; loss and gradient as NumPy arrays."""
    parts = np.array_split(points.reshape(-1, 128, points.shape[1]), available_cores())
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: jax.tree.map(np.asarray, evaluate(part)), parts))
    return [np.concatenate(pieces) for pieces in zip(*found, strict=True)]


def quadrature(neurons: int, nodes: int):
    """The same by a fixed rule and automatic differentiation."""
    x, weights = np.polynomial.legendre.leggauss(nodes)

    def loss(theta):
        at = jnp.asarray((x + 1) / 2, theta.dtype)
        w, b, v = (theta[k * neurons : (k + 1) * neurons] for k in range(3))
        network = theta[-1] + v @ jnp.maximum(w[:, None] * at + b[:, None], 0)
        return jnp.asarray(weights / 2, theta.dtype) @ (network - at) ** 2

    @jax.jit
    def evaluate(blocks):
        values, slopes = jax.lax.map(jax.vmap(jax.value_and_grad(loss)), blocks)
        return values.reshape(-1), slopes.reshape(-1, slopes.shape[-1])

    return evaluate


def by_numba(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by hand."""
    values, slopes = np.empty(len(points), points.dtype), np.empty_like(points)
    _by_numba(points, values, slopes)
    return values, slopes


@numba.njit(parallel=True, fastmath=True)
def _by_numba(points, values, slopes):
    """One network at a time: sorted breakpoints, the residual a line on each piece, sums up to each breakpoint."""
    N = points.shape[1] // 3
    zero, one, third = points.dtype.type(0), points.dtype.type(1), points.dtype.type(1 / 3)
    for lane in numba.prange(points.shape[0]):
        theta, out = points[lane], slopes[lane]
        place, order = np.empty(N, points.dtype), np.empty(N, np.int64)
        level_up_to, tilt_up_to = np.empty(N, points.dtype), np.empty(N, points.dtype)
        steep, height = -one, theta[3 * N]
        for j in range(N):
            w, b, v = theta[j], theta[N + j], theta[2 * N + j]
            if (w > zero and b >= zero) or (w <= zero and b > zero):  # active at 0
                steep, height = steep + v * w, height + v * b
            t = -b / w if w != zero else zero
            t = min(max(t, zero), one)
            k = j
            while k > 0 and place[k - 1] > t:
                place[k], order[k] = place[k - 1], order[k - 1]
                k -= 1
            place[k], order[k] = t, j
        total, level, tilt, start = zero, zero, zero, zero
        for k in range(N + 1):
            end = place[k] if k < N else one
            half, mid = (end - start) / 2, (end + start) / 2
            rise, mean = steep * half, steep * mid + height
            total += 2 * half * (mean * mean + rise * rise * third)
            level += 2 * half * mean
            tilt += 2 * half * (mid * mean + half * rise * third)
            start = end
            if k < N:
                j = order[k]
                level_up_to[j], tilt_up_to[j] = level, tilt
                if zero < end < one:
                    sign = one if theta[j] > zero else -one
                    steep += sign * theta[2 * N + j] * theta[j]
                    height += sign * theta[2 * N + j] * theta[N + j]
        for j in range(N):
            w, b, v = theta[j], theta[N + j], theta[2 * N + j]
            own, lean = level_up_to[j], tilt_up_to[j]
            if w > zero:
                own, lean = level - own, tilt - lean
            elif w == zero and b > zero:
                own, lean = level, tilt
            out[j], out[N + j], out[2 * N + j] = 2 * v * lean, 2 * v * own, 2 * (w * lean + b * own)
        out[3 * N] = 2 * level
        values[lane] = total


def bench_evaluations(neurons: list[int], dtype: str, lanes: int, repeats: int) -> list[dict]:
    """All ways in turn, for every number of neurons."""
    rows = []
    for N in neurons:
        points = networks(N, lanes, dtype)
        ways = {"gdstab": closed_form(N), **{f"quadrature, {nodes} nodes": quadrature(N, nodes) for nodes in NODES}}
        calls = {name: partial(on_all_cores, way, points) for name, way in ways.items()}
        timed = measuring.paired(calls | {"numba": partial(by_numba, points)}, repeats)
        exact = relu.risk(points), relu.gradient(points)
        for name, entry in timed.items():
            values, slopes = (np.asarray(part, np.float64) for part in entry.pop("answer"))
            rows.append({
                "job": "evaluations", "way": name, "neurons": N, "dtype": dtype, "lanes": lanes, **entry,
                "evaluations_per_second": lanes / entry["minimum"],
                "risk_error": float(np.max(np.abs(values - exact[0]) / (exact[0] + 1 / 3))),
                "gradient_error": float(np.max(np.abs(slopes - exact[1]).max(1) / (np.abs(exact[1]).max(1) + 1))),
            })  # fmt: skip
    return rows + exponents(rows, "evaluations_per_second")


def bench_engine(neurons: list[int], dtype: str, most: int, repeats: int) -> list[dict]:
    """The same number of updates for every lane; fewer lanes of larger networks."""
    rows = []
    for N in neurons:
        lanes = most // (2 * N)
        points, loss = networks(N, lanes, dtype) / 2, gd.losses.ShallowReLU(N)
        run = lambda points=points, loss=loss: gd.ensembles.run(  # noqa: E731
            gd.gradient_descent(), loss, points, 0.02, NEVER, keep=("loss",)
        )
        [entry] = measuring.paired({"gdstab": run}, repeats).values()
        found = entry.pop("answer")
        rows.append({
            "job": "engine", "way": "gdstab", "neurons": N, "dtype": dtype, "lanes": lanes, "updates": UPDATES, **entry,
            "lane_steps_per_second": found.lane_steps / entry["minimum"],
            "mean_loss": float(np.mean(found.loss, dtype=np.float64)),
        })  # fmt: skip
    return rows + exponents(rows, "lane_steps_per_second")


def exponents(rows: list[dict], rate: str) -> list[dict]:
    """The power of N by which the cost of each way grows, by least squares of logarithms."""
    fits = []
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        if len(mine) > 2:
            sizes, rates = ([row[name] for row in mine] for name in ("neurons", rate))
            exponent = -float(np.polyfit(np.log(sizes), np.log(rates), 1)[0])
            fits.append({"job": f"{mine[0]['job']}, cost against N", "way": way, "dtype": mine[0]["dtype"],
                         "neurons": sizes, "exponent": exponent})  # fmt: skip
    return fits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("evaluations", "engine"), default=("evaluations", "engine"))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--neurons", nargs="+", type=int, default=(2, 4, 8, 16))
    parser.add_argument("--lanes", type=int, default=2**16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    jobs = {"evaluations": bench_evaluations, "engine": bench_engine}
    for name in options.only:
        measuring.write("relu", jobs[name](options.neurons, options.dtype, options.lanes, options.repeats))


if __name__ == "__main__":
    main()
