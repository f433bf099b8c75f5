"""Basin measures and boundaries: cost against samples, devices, error and resolution, beside Numba and pynamicalsys.

    python benchmarks/bench_basins.py [--only samples devices error adaptive peers] [--most 100000000] [--finest 16384]

The job is that of `bench_ensembles.py`, setting "loss": L = (1 - xy)^2, eta = 0.3, [-4, 4]^2, where the share of the
basin is exact. Rows go to `benchmarks/results/basins.jsonl`, fits of power laws as rows of their own.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import baselines
import jax
import measuring
import numpy as np

import gdstab as gd
from gdstab.theory import scalar

jax.config.update("jax_enable_x64", True)

BOX, STEP_SIZE, RADIUS = ((-4.0, 4.0), (-4.0, 4.0)), 0.3, 1e6
STOPPING = gd.StoppingRule(loss_tol=1e-6, escape_radius=RADIUS, max_steps=2000)
SETTLED = gd.StoppingRule(loss_tol=1e-12, grad_tol=1e-10, escape_radius=RADIUS, max_steps=100_000)
"""Setting "default", for pictures: under "loss" some cells stay undecided, specks too small to be refined."""
LOSS = gd.losses.ScalarProduct(depth=2, target=1.0, scale=1.0)
RULE = gd.gradient_descent()
EXACT = scalar.basin_area(STEP_SIZE, scale=1.0) / 64


def measured(source) -> gd.basins.Measure:
    """The basin measure of the job."""
    return gd.basins.measure(RULE, LOSS, STEP_SIZE, source, stopping=STOPPING)


def plain(num: int, seed: int = 0):
    """Independent uniform points."""
    return gd.sampling.RandomSource.box(jax.random.key(seed), num, BOX)


def slope(x, y) -> float:
    """Exponent of the power law through points, by least squares of logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def bench_samples(most: int) -> list[dict]:
    """Time against the number of samples: a line."""
    numbers = [n for n in (10**4, 10**5, 10**6, 10**7, 10**8, 10**9) if n <= most]
    rows = []
    for n in numbers:
        measured(plain(n))  # compiles for this shape
        begin = time.perf_counter()
        found = measured(plain(n))
        seconds = time.perf_counter() - begin
        share = found.share()
        rows.append({
            "job": "samples", "samples": n, "seconds": seconds, "samples_per_second": n / seconds,
            "share": float(share.value[0]), "standard_error": float(share.standard_error[0]), "exact": EXACT,
        })  # fmt: skip
    large = [row for row in rows if row["samples"] >= 10**7]
    if len(large) > 1:
        exponent = slope([row["samples"] for row in large], [row["seconds"] for row in large])
        rows.append({"job": "samples", "fit": "seconds against samples, from 1e7 on", "exponent": exponent})
    return rows


def bench_devices(num: int) -> list[dict]:
    """The same measure on one and on two devices; a process each, because devices are counted when JAX starts."""
    rows = []
    for devices in (1, 2):
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        words = [sys.executable, __file__, "--worker", str(num)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        rows.append({"job": "devices", "devices": devices, **json.loads(done.stdout.splitlines()[-1])})
    rows[1]["same_counts"] = rows[0]["counts"] == rows[1]["counts"]
    return rows


def worker(num: int) -> None:
    """One process of `bench_devices`."""
    measured(plain(num))
    begin = time.perf_counter()
    found = measured(plain(num))
    seconds = time.perf_counter() - begin
    print(json.dumps({"samples": num, "seconds": seconds, "counts": found.counts[0].tolist()}))


def bench_error(repetitions: int) -> list[dict]:
    """Root mean square error of the share against its cost, for every way of drawing, and for the adaptive heatmap."""
    ways = {
        "plain": plain,
        "stratified": lambda n, seed: gd.sampling.StratifiedSource(
            jax.random.key(seed), n, BOX, (min(int(n**0.5) // 2, 128),) * 2
        ),
        "sobol": lambda n, seed: gd.sampling.SobolSource(n, BOX, replicates=16, seed=seed),
    }
    rows = []
    for name, source in ways.items():
        for side in (64, 128, 256, 512, 1024):
            errors, seconds, steps = [], [], 0
            for seed in range(repetitions):
                begin = time.perf_counter()
                found = measured(source(side * side, seed))
                seconds.append(time.perf_counter() - begin)
                errors.append(float(found.share().value[0]) - EXACT)
                steps += int(found.tally.lane_steps.sum())
            rows.append({
                "job": "error", "way": name, "lanes": side * side, "error": float(np.sqrt(np.mean(np.square(errors)))),
                "seconds": float(np.median(seconds)), "lane_steps": steps / repetitions, "repetitions": repetitions,
            })  # fmt: skip
    for side in (256, 512, 1024, 2048, 4096):
        found = adaptive(side)
        rows.append({
            "job": "error", "way": "adaptive", "lanes": found.lanes, "error": abs(found.area / 64 - EXACT),
            "seconds": found.run_seconds, "lane_steps": found.lane_steps, "repetitions": 1, "resolution": side,
        })  # fmt: skip
    for name in [*ways, "adaptive"]:
        mine = [row for row in rows if row["way"] == name]
        exponent = slope([row["lanes"] for row in mine], [row["error"] for row in mine])
        rows.append({"job": "error", "way": name, "fit": "error against lanes", "exponent": exponent})
    return rows


def adaptive(side: int) -> gd.boundaries.AdaptiveHeatmap:
    """The adaptive picture of the job, compiled before it is timed."""
    options = {"box": BOX, "resolution": (side, side), "stopping": SETTLED}
    gd.boundaries.adaptive_heatmap(RULE, LOSS, STEP_SIZE, **options)
    return gd.boundaries.adaptive_heatmap(RULE, LOSS, STEP_SIZE, **options)


def bench_adaptive(finest: int) -> list[dict]:
    """Adaptive heatmaps against brute force: share of the lanes, seconds, cells that differ; how the cost grows."""
    rows = []
    for side in (1024, 2048, 4096, 8192, 16384):
        if side > finest:
            break
        found = adaptive(side)
        row = {
            "job": "adaptive", "resolution": side, "lanes": found.lanes, "share_of_lanes": found.share_computed,
            "rounds": found.rounds, "seconds": found.run_seconds, "area": found.area, "exact_area": 64 * EXACT,
        }  # fmt: skip
        if side <= 4096:
            brute = gd.basins.heatmap(RULE, LOSS, STEP_SIZE, box=BOX, resolution=(side, side), stopping=SETTLED)
            differing = brute.outcome != found.outcome
            row |= {
                "brute_seconds": brute.run_seconds,
                "differing_cells": int(np.count_nonzero(differing)),
                # Centres that lie on xy = 1 to rounding are minima, unstable ones too, before any update.
                "differing_cells_that_moved": int(np.count_nonzero(differing & (brute.steps > 0))),
            }
        rows.append(row)
    if len(rows) > 1:
        sides = [row["resolution"] for row in rows]
        exponent = slope(sides, [row["lanes"] for row in rows])
        rows.append({"job": "adaptive", "fit": "lanes against cells per side (1: edge, 2: area)", "exponent": exponent})
    return rows


def bench_peers(num: int, repeats: int) -> list[dict]:
    """The same points by the engine, by a Numba loop, and, a few of them, by pynamicalsys."""
    points = np.asarray(gd.sampling.box(jax.random.key(0), num, BOX))
    rule = (1.0, 1.0, STEP_SIZE, STOPPING.loss_tol, None, RADIUS, STOPPING.max_steps)
    ways = {
        "gdstab": lambda: float(np.mean(run(points) == gd.Outcome.CONVERGED)),
        "numba": lambda: float(np.mean(baselines.product_numba(points, *rule)[0] == baselines.CONVERGED)),
    }
    few = points[: min(num, 2000)]
    timed = measuring.paired(ways, repeats) | measuring.paired({"pynamicalsys": lambda: peer(few)}, 1)
    rows = []
    for name, entry in timed.items():
        lanes = len(few) if name == "pynamicalsys" else num
        share = entry.pop("answer")
        rows.append({"job": "peers", "way": name, "lanes": lanes, **entry, "lanes_per_second": lanes / entry["minimum"],
                     "share": share, "exact": EXACT})  # fmt: skip
    ours = rows[0]["lanes_per_second"]
    return [{**row, "engine_rate_over_this": ours / row["lanes_per_second"]} for row in rows]


def run(points):
    """Outcomes of the engine."""
    return gd.run(RULE, LOSS, points, STEP_SIZE, STOPPING, keep=()).outcome


def peer(points) -> float:
    """Share of the points that stay bounded for 200 updates, by pynamicalsys, which knows escapes and no loss."""
    import numba  # noqa: PLC0415
    from pynamicalsys import DiscreteDynamicalSystem  # noqa: PLC0415 (of the bench extra)

    @numba.njit
    def descent(u, parameters):
        residual = 1.0 - u[0] * u[1]
        step = 2.0 * parameters[0] * residual
        return np.array([u[0] + step * u[1], u[1] + step * u[0]])

    system = DiscreteDynamicalSystem(mapping=descent, system_dimension=2, parameters=[STEP_SIZE])
    region = np.array([[-100.0, 100.0], [-100.0, 100.0]])
    ends = [system.escape_analysis(point, 200, region, escape="exiting")[1] for point in points]
    return float(np.mean(np.array(ends) >= 200))


def main() -> int:
    """Run what was asked for, and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("samples", "devices", "error", "adaptive", "peers")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--most", type=int, default=10**8, help="samples")
    parser.add_argument("--finest", type=int, default=16384, help="cells per side")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return 0
    jobs = {
        "samples": lambda: bench_samples(options.most),
        "devices": lambda: bench_devices(min(options.most, 10**7)),
        "error": lambda: bench_error(options.repetitions),
        "adaptive": lambda: bench_adaptive(options.finest),
        "peers": lambda: bench_peers(min(options.most, 10**6), options.repeats),
    }
    for name in options.only:
        measuring.write("basins", jobs[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
