"""A batch of gradient flows, beside a loop of single jitted solves and scipy's solve_ivp; run from the root.

    python benchmarks/bench_flow.py [--only product network] [--starts 1024] [--few 32]

Product: (1 - xy)^2 from a box, until t = 20; in the corners it is ten times as stiff as in the middle. Network: three
3 x 3 layers of Gaussian weights of several sizes, until t = 1; the slowest flow takes four times the steps of the mean.
The same tolerances for all (rtol 1e-8, atol 1e-10), float64. Loops run over some of the starts, and their rate counts.
Errors are largest entries against solve_ivp by DOP853 at rtol 1e-13. Rows go to `benchmarks/results/flow.jsonl`.
"""

import argparse
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import measuring
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

import gdstab as gd

jax.config.update("jax_enable_x64", True)

RTOL, ATOL = 1e-8, 1e-10


def product(num: int):
    """The loss, its starts and the time."""
    return gd.losses.ScalarProduct(scale=1.0), np.random.default_rng(0).uniform(-5, 5, (num, 2)), 20.0


def network(num: int):
    """The same for three layers."""
    rng = np.random.default_rng(0)
    starts = tuple(rng.normal(size=(num, 3, 3)) * rng.lognormal(0, 0.25, (num, 1, 1)) for _ in range(3))
    return gd.losses.LinearNetwork(jnp.eye(3), jnp.diag(jnp.array([2.0, 1.0, 0.5]))), starts, 1.0


JOBS = {"product": product, "network": network}


def rows(job: str, num: int, few: int, repeats: int) -> list[dict]:
    """All ways in turn, each with its error."""
    loss, starts, time = JOBS[job](num)
    settings = {"rtol": RTOL, "atol": ATOL}
    some = jax.tree.map(lambda leaf: leaf[:few], starts)
    single = eqx.filter_jit(lambda theta: gd.flow.gradient_flow(loss, theta, time, **settings))
    flows = partial(gd.flow.gradient_flows, loss, starts, time, **settings)
    flat = np.stack([ravel_pytree(one)[0] for one in _each(some)])
    unravel = ravel_pytree(next(_each(some)))[1]
    slope = jax.jit(jax.grad(lambda point: loss(unravel(point))))
    scipy = {
        f"loop of solve_ivp, {name}": partial(_solve_all, slope, flat, time, method=name, **settings)
        for name in ("RK45", "DOP853")
    }
    ways = {
        "gradient_flows, ensembles.map_points": lambda: flows(map_points=gd.ensembles.map_points),
        "gradient_flows, one vmap": lambda: jax.block_until_ready(flows()),
        "loop of jitted solves": lambda: [jax.block_until_ready(single(one)) for one in _each(some)],
        **scipy,
    }
    exact = _solve_all(slope, flat, time, method="DOP853", rtol=1e-13, atol=1e-14)
    timed = measuring.paired(ways, repeats)
    found = []
    for way, entry in timed.items():
        answer = entry.pop("answer")
        whole = way.startswith("gradient_flows")
        lanes = num if whole else few
        if whole:
            answer = _each(jax.tree.map(lambda leaf: leaf[:few], answer))
        ends = answer if way in scipy else np.stack([ravel_pytree(flow.theta)[0] for flow in answer])
        found.append({
            "job": job, "way": way, "dtype": "float64", "rtol": RTOL, "atol": ATOL, "flows": lanes, **entry,
            "milliseconds_per_flow": 1e3 * entry["minimum"] / lanes, "largest_error": float(np.abs(ends - exact).max()),
        })  # fmt: skip
    return [
        {**row, "time_over_gdstab": row["milliseconds_per_flow"] / found[0]["milliseconds_per_flow"]} for row in found
    ]


def _each(tree):
    """The members of a batch."""
    for i in range(len(jax.tree.leaves(tree)[0])):
        yield jax.tree.map(lambda leaf, i=i: leaf[i], tree)


def _solve_all(slope, points, time, **settings):
    field = lambda _, point: -np.asarray(slope(point))  # noqa: E731
    return np.stack([solve_ivp(field, (0, time), point, **settings).y[:, -1] for point in points])


def main() -> int:
    """Run what was asked for, and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--starts", type=int, default=1024)
    parser.add_argument("--few", type=int, default=32, help="starts of the loops")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for job in options.only:
        measuring.write("flow", rows(job, options.starts, options.few, options.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
