"""Orbit diagrams and heatmaps of the Lyapunov exponent, beside hand-written Numba and pynamicalsys.

    python benchmarks/bench_dynamics.py [--only diagram lyapunov] [--steps 2000] [--starts 500] [--side 512]

Diagram: L = (1 - xy)^2 from starts on x = y, step sizes from 0.4 to 0.999: 1000 updates are discarded, 64 values of x
counted in 800 bins, a histogram for each step size. Exponents: eta = 0.9, a grid over [-1.2, 1.2]^2, the tangent vector
over 1000 updates after 100. pynamicalsys takes one start at a time, so that it runs a few of them, and its rate counts;
it hands out values, and the counting is NumPy's. Answers are compared where orbits are regular, bin by bin, and where
they are chaotic, by distributions. Rows go to `benchmarks/results/dynamics.jsonl`.
"""

import argparse
import functools
import importlib.util
import sys

import jax
import measuring
import numba
import numpy as np

import gdstab as gd

jax.config.update("jax_enable_x64", True)

PEER = importlib.util.find_spec("pynamicalsys") is not None
"""Of the bench extra; without it there is one row less."""
LOSS = gd.losses.ScalarProduct(depth=2, target=1.0, scale=1.0)
RULE = gd.gradient_descent()
TRANSIENT, KEPT, BINS, RANGE, RADIUS = 1000, 64, 800, (-1.5, 1.5), 1e6
REGULAR = 0.64
"""Below this step size orbits have period 1, 2 or 4."""
STEP_SIZE, BOX, COUNTED, DISCARDED = 0.9, ((-1.2, 1.2), (-1.2, 1.2)), 1000, 100


def bench_diagram(steps: int, starts: int, repeats: int, few: int) -> list[dict]:
    """Histograms for every step size, by all ways in turn."""
    step_sizes = np.linspace(0.4, 0.999, steps)
    points = np.repeat(np.random.default_rng(0).uniform(0.1, 1.25, starts)[:, None], 2, axis=1)

    def ours(max_period: int):
        found = gd.bifurcation.orbit_diagram(
            RULE, LOSS, step_sizes, points, transient=TRANSIENT, kept=KEPT, max_period=max_period, bins=BINS,
            value_range=RANGE, escape_radius=RADIUS,
        )  # fmt: skip
        return found.counts

    ways = {
        "gdstab": lambda: ours(1),
        "gdstab, with periods up to 16": lambda: ours(16),
        "numba": lambda: diagram_numba(step_sizes, points, TRANSIENT, KEPT, BINS, *RANGE),
    }
    timed = measuring.paired(ways, repeats)
    few = min(few, starts)
    if PEER:
        timed |= measuring.paired({"pynamicalsys": lambda: diagram_peer(step_sizes, points[:few])}, 1)
    reference = timed["numba"]["answer"]
    regular = step_sizes < REGULAR
    rows = []
    for name, entry in timed.items():
        counts, run = entry.pop("answer"), few if name == "pynamicalsys" else starts
        if name == "pynamicalsys":
            reference = diagram_numba(step_sizes, points[:few], TRANSIENT, KEPT, BINS, *RANGE)
        lanes, updates = steps * run, steps * run * (TRANSIENT + KEPT)
        apart = 0.5 * np.abs(counts - reference).sum(axis=1) / np.maximum(reference.sum(axis=1), 1)
        rows.append({
            "job": "diagram", "way": name, "lanes": lanes, **entry, "lane_steps_per_second": updates / entry["minimum"],
            "counted": int(counts.sum()), "expected": lanes * KEPT,
            "apart_regular": float(apart[regular].mean()), "apart_chaotic": float(apart[~regular].mean()),
        })  # fmt: skip
    return _rates(rows)


def bench_lyapunov(side: int, repeats: int, few: int) -> list[dict]:
    """The largest exponent from every point of a grid."""
    points = np.asarray(gd.sampling.grid(BOX, (side, side)))

    def ours():
        total = COUNTED + DISCARDED
        found, _ = gd.basins.exponents(RULE, LOSS, points, STEP_SIZE, total, transient=DISCARDED, escape_radius=RADIUS)
        return found

    ways = {"gdstab": ours, "numba": lambda: lyapunov_numba(points, STEP_SIZE, DISCARDED, COUNTED, RADIUS**2)}
    timed = measuring.paired(ways, repeats)
    chosen = np.linspace(0, len(points) - 1, min(few, len(points))).astype(int)
    if PEER:
        timed |= measuring.paired({"pynamicalsys": lambda: lyapunov_peer(points[chosen])}, 1)
    rows, reference = [], timed["numba"]["answer"]
    for name, entry in timed.items():
        found = entry.pop("answer")
        expected = reference[chosen] if name == "pynamicalsys" else reference
        both = np.isfinite(found) & np.isfinite(expected)
        rows.append({
            "job": "lyapunov", "way": name, "lanes": found.size, **entry,
            "lane_steps_per_second": found.size * (COUNTED + DISCARDED) / entry["minimum"],
            "same_escapes": float(np.mean(np.isfinite(found) == np.isfinite(expected))),
            "mean": float(found[both].mean()), "mean_of_numba": float(expected[both].mean()),
            "spread_of_one": float(expected[both].std()),
        })  # fmt: skip
    return _rates(rows)


def _rates(rows: list[dict]) -> list[dict]:
    ours = rows[0]["lane_steps_per_second"]
    return [{**row, "gdstab_rate_over_this": ours / row["lane_steps_per_second"]} for row in rows]


def diagram_numba(step_sizes, points, transient, kept, bins, low, high):
    """Counts [steps, bins] of x by a `prange` kernel over step sizes."""
    counts = np.zeros((len(step_sizes), bins), np.int64)
    _diagram_kernel(step_sizes, points, transient, kept, low, bins / (high - low), counts)
    return counts


@numba.njit(parallel=True, fastmath=True)
def _diagram_kernel(step_sizes, points, transient, kept, low, per_unit, counts):
    for row in numba.prange(step_sizes.shape[0]):
        twice = 2.0 * step_sizes[row]
        for start in range(points.shape[0]):
            x, y = points[start, 0], points[start, 1]
            for _ in range(transient):
                move = twice * (1.0 - x * y)
                x, y = x + move * y, y + move * x
            for _ in range(kept):
                move = twice * (1.0 - x * y)
                x, y = x + move * y, y + move * x
                place = np.floor((x - low) * per_unit)
                if 0.0 <= place < counts.shape[1]:
                    counts[row, int(place)] += 1


def lyapunov_numba(points, step_size, discarded, counted, radius_squared):
    """The largest exponent of each point by a `prange` kernel; NaN where the orbit leaves the ball."""
    exponents = np.empty(len(points))
    _lyapunov_kernel(points, step_size, discarded, counted, radius_squared, exponents)
    return exponents


@numba.njit(parallel=True)
def _lyapunov_kernel(points, step_size, discarded, counted, radius_squared, exponents):
    twice = 2.0 * step_size
    for lane in numba.prange(points.shape[0]):
        x, y = points[lane, 0], points[lane, 1]
        u, v = 0.8, 0.6
        total = 0.0
        for update in range(discarded + counted):
            residual = 1.0 - x * y
            # The derivative of (x + 2 eta r y, y + 2 eta r x) along (u, v), with dr = -(y u + x v).
            turn = -(y * u + x * v)
            u, v = u + twice * (turn * y + residual * v), v + twice * (turn * x + residual * u)
            x, y = x + twice * residual * y, y + twice * residual * x
            if not x * x + y * y <= radius_squared:
                total = np.nan
                break
            size = np.sqrt(u * u + v * v)
            u, v = u / size, v / size
            if update >= discarded:
                total += np.log(size)
        exponents[lane] = total / counted


@functools.cache
def system():
    """The same map for pynamicalsys; without it all else still runs."""
    from pynamicalsys import DiscreteDynamicalSystem  # noqa: PLC0415

    @numba.njit
    def descent(u, parameters):
        move = 2.0 * parameters[0] * (1.0 - u[0] * u[1])
        return np.array([u[0] + move * u[1], u[1] + move * u[0]])

    @numba.njit
    def jacobian(u, parameters, mapping):  # noqa: ARG001 (asked for by slopes that are differences)
        twice = 2.0 * parameters[0]
        mixed = twice * (1.0 - 2.0 * u[0] * u[1])
        return np.array([[1.0 - twice * u[1] * u[1], mixed], [mixed, 1.0 - twice * u[0] * u[0]]])

    return DiscreteDynamicalSystem(mapping=descent, jacobian=jacobian, system_dimension=2, parameters=[STEP_SIZE])


def diagram_peer(step_sizes, points):
    """Counts [steps, bins] of x: one bifurcation diagram for each start."""
    counts = np.zeros((len(step_sizes), BINS), np.int64)
    edges = np.linspace(*RANGE, BINS + 1)
    for point in points:
        _, values = system().bifurcation_diagram(point, 0, step_sizes, TRANSIENT + KEPT, transient_time=TRANSIENT)
        for row, some in enumerate(values):
            counts[row] += np.histogram(some, edges)[0]
    return counts


def lyapunov_peer(points):
    """The largest exponent of each point."""
    total, settings = COUNTED + DISCARDED, {"num_exponents": 1, "transient_time": DISCARDED}
    found = [system().lyapunov(point, total, **settings) for point in points]
    return np.array([float(np.ravel(exponent)[0]) for exponent in found])


def main() -> int:
    """Run what was asked for, and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["diagram", "lyapunov"], default=["diagram", "lyapunov"])
    parser.add_argument("--steps", type=int, default=2000, help="step sizes of the diagram")
    parser.add_argument("--starts", type=int, default=500, help="starts of the diagram")
    parser.add_argument("--side", type=int, default=512, help="cells along a side of the heatmap")
    parser.add_argument("--few", type=int, default=16, help="starts, and points in hundreds, for pynamicalsys")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if "diagram" in options.only:
        measuring.write("dynamics", bench_diagram(options.steps, options.starts, options.repeats, options.few))
    if "lyapunov" in options.only:
        measuring.write("dynamics", bench_lyapunov(options.side, options.repeats, 100 * options.few))
    return 0


if __name__ == "__main__":
    sys.exit(main())
