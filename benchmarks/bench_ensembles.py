"""The engine against `vmap(while_loop)`, NumPy and hand-written Numba, on the grid of Figure 1(a) and on a network.

    python benchmarks/bench_ensembles.py [--resolutions 1000 4000] [--repeats 5] [--only product|network]

The job: L = (1 - xy)^2, eta = 0.3, cell centres of [-4, 4]^2, which are exactly antisymmetric, so that some hundred
cells creep to the saddle. Setting "loss": loss_tol 1e-6, no gradient test, at most 2000 updates. Setting "default":
loss_tol 1e-12, grad_tol 1e-10, at most 100 000, without the test for cycles (whose cost is a row of its own).
The network: 4-4-4-4, three layers, 2^15 random starts. Useful work is counted in lane-steps: updates applied to lanes
that had no verdict yet. Rows go to `benchmarks/results/ensembles.jsonl`.
"""

import argparse
import sys

import baselines
import jax
import jax.numpy as jnp
import measuring
import numpy as np

import gdstab as gd

jax.config.update("jax_enable_x64", True)

BOX, STEP_SIZE, RADIUS = ((-4.0, 4.0), (-4.0, 4.0)), 0.3, 1e6
SETTINGS = {
    "loss": {"loss_tol": 1e-6, "grad_tol": None, "max_steps": 2000},
    "default": {"loss_tol": 1e-12, "grad_tol": 1e-10, "max_steps": 100_000},
}
SLOW_CAP = 2000
"""`vmap(while_loop)` runs all lanes to the last: where one never ends, it is timed to this cap, and its rate counts."""


def engine(loss, source, step_size, limits, max_period=None):
    """Outcomes and steps in the order of the source."""
    stopping = gd.StoppingRule(**limits, escape_radius=RADIUS, max_period=max_period)
    result = gd.run(gd.gradient_descent(), loss, source, step_size, stopping, keep=())
    return result.outcome, result.steps


def agreement(ours, theirs) -> dict:
    """Share of lanes with the same outcome, and with the same count."""
    return {"same_outcome": float(np.mean(ours[0] == theirs[0])), "same_steps": float(np.mean(ours[1] == theirs[1]))}


def bench_product(resolution: int, dtype: str, setting: str, repeats: int) -> list[dict]:
    """All ways on one grid, in turn; the slow ones only on the small grid."""
    limits = SETTINGS[setting]
    loss = gd.losses.ScalarProduct(depth=2, target=1.0, scale=1.0)
    source = gd.sampling.GridSource(BOX, (resolution, resolution), dtype=dtype, compact=True)
    points = np.asarray(gd.sampling.grid(BOX, (resolution, resolution), dtype=dtype))
    rule = (1.0, 1.0, STEP_SIZE, limits["loss_tol"], limits["grad_tol"], RADIUS, limits["max_steps"])
    ways = {
        "engine": lambda: engine(loss, source, STEP_SIZE, limits),
        "engine on an array": lambda: engine(loss, points, STEP_SIZE, limits),
        "engine with cycles": lambda: engine(loss, source, STEP_SIZE, limits, max_period=8),
        "numba": lambda: baselines.product_numba(points, *rule),
    }
    timed = measuring.paired(ways, repeats)
    if resolution <= 1000:
        timed |= measuring.paired({"numpy": lambda: baselines.product_numpy(points, *rule)}, 1)
        cap = min(limits["max_steps"], SLOW_CAP)
        tolerances = (STEP_SIZE, limits["loss_tol"], limits["grad_tol"], RADIUS, cap)
        slow = baselines.make_vmap_while(
            loss, *(x if x is None else np.dtype(dtype).type(x) for x in tolerances[:-1]), cap
        )
        timed |= measuring.paired({"vmap(while_loop)": lambda: jax.tree.map(np.asarray, slow(points))}, 1)
    reference = tuple(source.to_grid(part).ravel() for part in timed["engine"]["answer"])
    rows = []
    for name, entry in timed.items():
        outcome, steps = entry.pop("answer")
        if name.startswith("engine") and name != "engine on an array":
            outcome, steps = source.to_grid(outcome).ravel(), source.to_grid(steps).ravel()
        useful = int(steps.sum(dtype=np.int64))
        rows.append({
            "job": "product", "way": name, "resolution": resolution, "dtype": dtype, "setting": setting, **entry,
            "lane_steps": useful, "lane_steps_per_second": useful / entry["minimum"],
            "seconds_over_engine": entry["minimum"] / timed["engine"]["minimum"],
            "converged": float(np.mean(outcome == gd.Outcome.CONVERGED)), **agreement(reference, (outcome, steps)),
        })  # fmt: skip
    return rows


def bench_network(dtype: str, lanes: int, repeats: int) -> list[dict]:
    """Three 4 x 4 layers from random starts, to a loss of 1e-6 or 500 updates."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.6, (lanes, 3, 4, 4)).astype(dtype)
    target = np.diag([2.0, 1.5, 1.0, 0.5]).astype(dtype)
    limits, step_size = {"loss_tol": 1e-6, "grad_tol": None, "max_steps": 500}, 0.05
    network = gd.losses.LinearNetwork(jnp.eye(4, dtype=dtype), jnp.asarray(target))
    theta = tuple(np.ascontiguousarray(weights[:, i]) for i in range(3))

    def at_loss(theta):
        return 0.5 * jnp.sum((target - theta[2] @ theta[1] @ theta[0]) ** 2)

    kind = np.dtype(dtype).type
    slow = baselines.make_vmap_while(at_loss, kind(step_size), kind(1e-6), None, kind(RADIUS), limits["max_steps"])
    few = tuple(layer[: lanes // 16] for layer in theta)  # the slow way is timed on a part, its rate counts
    ways = {
        "engine": lambda: engine(network, theta, step_size, limits),
        "numba": lambda: baselines.network_numba(weights, target, step_size, 1e-6, RADIUS, 500),
        "vmap(while_loop) of @": lambda: jax.tree.map(np.asarray, slow(few)),
    }
    timed = measuring.paired({name: ways[name] for name in ("engine", "numba")}, repeats)
    timed |= measuring.paired({"vmap(while_loop) of @": ways["vmap(while_loop) of @"]}, 1)
    reference = timed["engine"]["answer"]
    rate = reference[1].sum(dtype=np.int64) / timed["engine"]["minimum"]
    rows = []
    for name, entry in timed.items():
        answer = entry.pop("answer")
        useful, run = int(answer[1].sum(dtype=np.int64)), len(answer[0])
        rows.append({
            "job": "network 4-4-4-4", "way": name, "lanes": run, "dtype": dtype, **entry,
            "lane_steps": useful, "lane_steps_per_second": useful / entry["minimum"],
            "engine_rate_over_this": rate / (useful / entry["minimum"]),
            "converged": float(np.mean(answer[0] == gd.Outcome.CONVERGED)),
            **agreement([part[:run] for part in reference], answer),
        })  # fmt: skip
    return rows


def main() -> int:
    """Run what was asked for, and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=2**15)
    parser.add_argument("--only", choices=["product", "network"])
    options = parser.parse_args()
    for dtype in options.dtypes:
        if options.only != "network":
            for resolution in options.resolutions:
                for setting in options.settings:
                    measuring.write("ensembles", bench_product(resolution, dtype, setting, options.repeats))
        if options.only != "product":
            measuring.write("ensembles", bench_network(dtype, options.lanes, options.repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
