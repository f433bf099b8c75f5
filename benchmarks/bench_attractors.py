"""Labels of end points: 10^7 of them grouped, beside what groups points elsewhere; what labels cost a basin measure.

    python benchmarks/bench_attractors.py [--only group measure] [--most 10000000] [--repeats 3]

End points are those of Himmelblau's function (four points, to 1e-7) and of the hyperbola xy = 1 (a manifold).
scikit-learn's DBSCAN and the components of a graph of close pairs (SciPy's kd-tree) group by the same distance, of as
many points as they take within some seconds. Rows go to `benchmarks/results/attractors.jsonl`.
"""

import argparse
import sys

import jax
import measuring
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.cluster import DBSCAN

import gdstab as gd

jax.config.update("jax_enable_x64", True)

BOX, STEP_SIZE, TOL = ((-5.0, 5.0), (-5.0, 5.0)), 0.01, 0.05
STOPPING = gd.StoppingRule(max_steps=2000)
FEW = {"points": 10**4, "manifold": 10**5}
"""Points for the others: those at one minimum are all close to each other, n^2 pairs of them."""


def ends(kind: str, num: int) -> np.ndarray:
    """End points `[num, 2]`."""
    rng = np.random.default_rng(0)
    if kind == "points":
        at = gd.losses.Himmelblau().minima()[rng.integers(0, 4, num)]
    else:
        x = np.exp(rng.uniform(-1, 1, num)) * rng.choice([-1, 1], num)
        at = np.stack([x, 1 / x], axis=1)
    return at + 1e-7 * rng.standard_normal((num, 2))


def by_tree(points: np.ndarray) -> int:
    """How many components the graph of pairs within `TOL` has."""
    pairs = cKDTree(points).query_pairs(TOL, p=np.inf, output_type="ndarray")
    size = len(points)
    return int(connected_components(coo_array((np.ones(len(pairs), bool), pairs.T), (size, size)), directed=False)[0])


def bench_group(most: int, repeats: int) -> list[dict]:
    """Seconds to group end points, and how many groups."""
    rows = []
    for kind in ("points", "manifold"):
        whole, few = ends(kind, most), ends(kind, FEW[kind] // 10)
        some = ends(kind, FEW[kind])
        ways = {
            "gdstab": (whole, lambda p=whole: gd.basins.find_attractors(p, TOL)[0].num),
            "gdstab, of as many": (some, lambda p=some: gd.basins.find_attractors(p, TOL)[0].num),
            "sklearn DBSCAN": (some, lambda p=some: len(set(DBSCAN(TOL, min_samples=1).fit(p).labels_.tolist()))),
            "scipy kd-tree": (few, lambda p=few: by_tree(p)),
        }
        timed = measuring.paired({name: call for name, (_, call) in ways.items()}, repeats)
        for name, entry in timed.items():
            num, groups = len(ways[name][0]), entry.pop("answer")
            rows.append({"job": "group", "ends": kind, "way": name, "points": num, "groups": groups, **entry,
                         "points_per_second": num / entry["minimum"]})  # fmt: skip
    return rows


def bench_measure(num: int, repeats: int) -> list[dict]:
    """A basin measure with labels and without."""
    source = gd.sampling.RandomSource.box(jax.random.key(0), num, BOX)
    asked = {"none": None, "found": gd.basins.Found(TOL), "a function": first_sign}

    def run(label):
        what = gd.gradient_descent(), gd.losses.Himmelblau(), STEP_SIZE, source
        return gd.basins.measure(*what, stopping=STOPPING, label=label)

    timed = measuring.paired({name: lambda label=label: run(label) for name, label in asked.items()}, repeats)
    rows = []
    for name, entry in timed.items():
        found = entry.pop("answer")
        lanes = None if found.attractors is None else found.attractors.lanes[0].tolist()
        rows.append({"job": "measure", "label": name, "samples": num, **entry, "lanes_of_labels": lanes,
                     "samples_per_second": num / entry["minimum"]})  # fmt: skip
    return rows


def first_sign(theta):
    """Which side an end point is on."""
    return (theta[0] > 0).astype("int32")


def main() -> int:
    """Run what was asked for, and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("group", "measure"), default=("group", "measure"))
    parser.add_argument("--most", type=int, default=10**7, help="end points")
    parser.add_argument("--samples", type=int, default=4 * 10**6, help="of the measure")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    jobs = {
        "group": lambda: bench_group(options.most, options.repeats),
        "measure": lambda: bench_measure(options.samples, options.repeats),
    }
    for name in options.only:
        measuring.write("attractors", jobs[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
