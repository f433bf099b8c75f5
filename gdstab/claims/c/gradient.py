"""Paper C, sections 4.1 and 5: regularity of the modified gradient and of the leaky one, in rational arithmetic."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from numbers import Rational

import jax
import numpy as np

from gdstab.claims.c import exact_relu as exact
from gdstab.claims.c.exact_relu import Problem
from gdstab.claims.registry import Finding, Verdict, claim, judge, require

HALF = Fraction(1, 2)
CURVED = Problem(Fraction(-1), Fraction(2), (HALF, Fraction(-1), Fraction(1, 3)))
"""A parabola on an interval of length 3."""
LEAKS = Fraction(1, 10), Fraction(7, 10)
SMALL = Fraction(1, 10**9)
"""The distance over which Jacobians are compared."""
ROUGH = 10**5
"""A Jacobian that changes by more than this times the distance jumps."""


def draws(key, num: int, neurons: int) -> list[list[Fraction]]:
    """Normal networks with parameters that are multiples of 1/64."""
    return [exact.fractions(row) for row in np.asarray(jax.random.normal(key, (num, 3 * neurons + 1)))]


def subsets(key, num: int, neurons: int) -> list[tuple[list[int], list[int]]]:
    """Random pairs J = (J_+, J_-) of disjoint sets of neurons."""
    sides = np.asarray(jax.random.randint(key, (num, neurons), 0, 3))
    return [([j for j in range(neurons) if row[j] == 1], [j for j in range(neurons) if row[j] == 2]) for row in sides]


def component(theta: Sequence[Fraction], problem: Problem, *, everywhere: bool = False) -> tuple | None:
    """Which connected component of U_inf holds the network; None if it lies outside.

    U_inf as printed keeps apart the breakpoints inside the interval; with `everywhere`, all of them.
    """
    w, b, _, _ = exact.split(theta)
    if not all(w):
        return None
    t = [-bias / weight for weight, bias in zip(w, b, strict=True)]
    if {problem.low, problem.high} & set(t):
        return None
    places = [(x > problem.low) + (x > problem.high) for x in t]
    kept = sorted((x, j) for j, x in enumerate(t) if everywhere or places[j] == 1)
    if len({x for x, _ in kept}) < len(kept):
        return None
    return tuple(x > 0 for x in w), tuple(places), tuple(j for _, j in kept)


def rough(theta, problem: Problem, direction, sets=((), ()), free: int | None = None) -> list[Fraction]:
    r"""How far the Jacobian is from continuous, and from being the derivative, over `SMALL` to either side.

    The largest change of an entry, and $|G(\theta + h d) - G(\theta) - h G'(\theta) d| / h$. Rows and columns of the
    first `free` neurons and of c, all by default.
    """
    N = len(theta) // 3
    kept = [k * N + j for k in range(3) for j in range(N if free is None else free)] + [3 * N]
    here, slopes = exact.gradient(theta, problem, *sets), exact.jacobian(theta, problem, *sets)
    jump = off = Fraction(0)
    for h in (SMALL, -SMALL):
        there = exact.moved(theta, direction, h)
        after, moved = exact.jacobian(there, problem, *sets), exact.gradient(there, problem, *sets)
        jump = max(jump, *(abs(after[i][k] - slopes[i][k]) for i in kept for k in kept))
        linear = [sum(slopes[i][k] * direction[k] for k in kept) for i in kept]
        off = max(off, *(abs((moved[i] - here[i]) / h - slope) for i, slope in zip(kept, linear, strict=True)))
    return [jump, off]


def is_rational(theta, direction, problem: Problem, sets=((), ())) -> bool:
    """Whether G^J times a power of the product of the w_k is a polynomial on a short segment."""
    N = len(theta) // 3
    power = len(problem.target) + 1
    values = []
    for step in range(power * N + 8):  # two more than the degree of the product
        point = exact.moved(theta, direction, step * SMALL)
        scale = np.prod([w**power for w in point[:N]])
        values.append([scale * entry for entry in exact.gradient(point, problem, *sets)])
    return all(exact.difference(row) == 0 for row in zip(*values, strict=True))


def edge(end: Fraction, sign: int, bias: Fraction) -> tuple[Fraction, Fraction]:
    """Weight and bias of a neuron of this sign whose breakpoint is at an end of the interval."""
    weight = sign * (abs(bias) + 1)
    return weight, -weight * end


def special_points(key, problem: Problem) -> Iterator[tuple[list[Fraction], tuple[list[int], list[int]]]]:
    """Networks of U^J at its delicate places, with J: semi-inactive neurons, equal breakpoints, one of w = 0."""
    for theta in draws(key, 3, 3):
        w, b, v, c = (list(part) if isinstance(part, list) else part for part in exact.split(theta))
        (w[0], b[0]), (w[1], b[1]) = edge(problem.high, 1, b[0]), edge(problem.low, -1, b[1])
        yield [*w, *b, *v, c], ([0], [1])  # Lemma 4.3 (ii)
        w[2], b[2] = Fraction(0), abs(b[2]) + 1
        yield [*w, *b, *v, c], ([0], [1])  # and a semi-active neuron
        w[2], b[2] = w[2] + 2, -HALF  # breakpoint 1/4
        w[1], b[1] = Fraction(-4), Fraction(1)  # breakpoint 1/4 as well
        yield [*w, *b, *v, c], ([0], [])
        yield [*w, *b, *v, c], ([1], [0])  # signs do not match: outside (ii)


@claim(
    "C.lem4.3",
    source="Lemma 4.3",
    expected=Verdict.CORRECTED,
    statement="(i) G^J is continuously differentiable on U^J; (ii) its Jacobian is symmetric where the neurons of J "
    "are semi-inactive with the sign of their set; (iii) it is locally Lipschitz there if f is; (iv) G^J is a rational "
    "function on each component of U_inf if f is a polynomial.",
)
def modified_gradient(key):
    """All in fractions: differences over 1e-9 at the delicate points, symmetry entry by entry, finite differences."""
    keys = jax.random.split(key, 4)
    jumps, offs, inside, outside = [], [], [], []
    for (theta, sets), direction in zip(special_points(keys[0], CURVED), draws(keys[1], 12, 3), strict=True):
        jump, off = rough(theta, CURVED, direction, sets)
        jumps.append(jump)
        offs.append(off)
        matched = all(theta[j] > 0 for j in sets[0]) and all(theta[j] < 0 for j in sets[1])
        (inside if matched else outside).append(exact.is_symmetric(exact.jacobian(theta, CURVED, *sets)))
    theta, _ = next(special_points(keys[0], CURVED))
    bare = rough(theta, CURVED, draws(keys[1], 1, 3)[0])[0]
    kinked = max(max(rough(theta, CURVED, d, ([0], [1]), free=3)) for theta, d in at_a_knot(keys[2]))
    regular = max(*jumps, *offs, kinked) < ROUGH * SMALL
    rational, counter = rationality(keys[3])
    constant = exact.jacobian(theta, CURVED)[-1][-1]
    numbers = {
        "change of the Jacobian over 1e-9, largest": float(max(jumps)),
        "error of the difference quotient over 1e-9, largest": float(max(offs)),
        "both at a knot of a piecewise linear f": float(kinked),
        "change of the Jacobian of G itself": float(bare),
        "networks of (ii), of them with a symmetric Jacobian": [len(inside), sum(inside)],
        "others, of them with a symmetric Jacobian": [len(outside), sum(outside)],
        "segments of random components on which G^J is rational": [sum(rational), len(rational)],
        "rational on a segment within a printed component, breakpoints crossing outside the interval": counter,
        "dG_c/dc, and twice the length of the interval": [float(constant), 2 * float(CURVED.high - CURVED.low)],
    }
    note = (
        "G^J integrates beyond the interval, so that f must be extended (here, by the polynomial itself). (iv) fails "
        "where breakpoints cross outside the interval: for w = (1, 1), J = ({1}, {}) the term (t_1 - t_2)_+^2 comes "
        "and goes within a component. It holds once no two breakpoints at all are equal; this set is open and of full "
        "measure too, so that Lemma 4.4 stands. In the proof, dG_c/dc = 2 (beta - alpha), printed 2, and the indicator "
        "of [r_j', s_j'] holds within the interval only."
    )
    require(bare > ROUGH * SMALL and not any(outside), "the points are not delicate")
    corrected = regular and all(inside) and all(rational) and constant == 2 * (CURVED.high - CURVED.low)
    return Finding(judge(corrected and counter, corrected), numbers, note)


def at_a_knot(key) -> Iterator[tuple[list[Fraction], list[Fraction]]]:
    """Special points against a target with a kink of its own at 1/4, where a neuron has its breakpoint as well.

    The kink is a fourth neuron that no direction moves.
    """
    for theta, direction in zip(draws(key, 2, 3), draws(jax.random.fold_in(key, 1), 2, 3), strict=True):
        w, b, v, c = (list(part) if isinstance(part, list) else part for part in exact.split(theta))
        (w[0], b[0]), (w[1], b[1]) = edge(CURVED.high, 1, b[0]), edge(CURVED.low, -1, b[1])
        w[2], b[2] = Fraction(4), Fraction(-1)
        dw, db, dv, dc = exact.split(direction)
        kink = Fraction(1), -HALF / 2, Fraction(-3)
        frozen = [x for part in (dw, db, dv) for x in (*part, Fraction(0))]
        yield [x for part, last in zip((w, b, v), kink, strict=True) for x in (*part, last)] + [c], [*frozen, dc]


def rationality(key) -> tuple[list[bool], bool]:
    """Lemma 4.3 (iv) on segments within components of the smaller set, and on the counterexample."""
    found = []
    for neurons, k in zip((1, 2), jax.random.split(key, 2), strict=True):
        keys = jax.random.split(k, 3)
        rows = zip(draws(keys[0], 12, neurons), draws(keys[1], 12, neurons), subsets(keys[2], 12, neurons), strict=True)
        found += [
            is_rational(theta, d, CURVED, sets) for theta, d, sets in rows if component(theta, CURVED, everywhere=True)
        ]
    return found, is_rational(*counterexample(), CURVED, ([0], []))


def counterexample() -> tuple[list[Fraction], list[Fraction]]:
    """A network and a direction: two breakpoints cross at about -2, left of the interval [-1, 2]."""
    ones = [Fraction(1)] * 2
    start = [*ones, Fraction(2), Fraction(2) - 5 * SMALL, *ones, Fraction(0)]
    along = [Fraction(x) for x in (0, 0, 0, 1, 0, 0, 0)]
    ends = [exact.moved(start, along, step * SMALL) for step in (0, 20)]
    require(component(ends[0], CURVED) == component(ends[1], CURVED), "the segment leaves its component")
    apart = [component(end, CURVED, everywhere=True) for end in ends]
    require(apart[0] != apart[1], "the breakpoints do not cross")
    return start, along


def regularity(matrix: list[list[Rational]], step_size: Fraction) -> Fraction:
    r"""$\det(I - \gamma A)$."""
    shifted = [[(i == k) - step_size * entry for k, entry in enumerate(row)] for i, row in enumerate(matrix)]
    return exact.determinant(shifted)


def determinants(key, problem: Problem, *, modified: bool) -> dict[str, list]:
    """Exact determinants at random networks, and the step sizes for which a whole component is singular.

    J is random if `modified`. Networks of inactive neurons only are rare, so they are added, two of each size.
    """
    sizes, special = (Fraction(1, 7), Fraction(5, 3)), 1 / (2 * (problem.high - problem.low))
    found = {"values": [], "asleep": [], "exceptional": set(), "pairs": 0}
    for neurons, k in zip((1, 2, 3), jax.random.split(key, 3), strict=True):
        keys = jax.random.split(k, 3)
        awake = [theta for theta in draws(keys[0], 18 // neurons, neurons) if component(theta, problem)]
        asleep = [Fraction(1)] * neurons + [-problem.high - 1] * neurons + [HALF] * neurons
        points = awake + [[*asleep, c] for c in (HALF, Fraction(0))]
        chosen = subsets(keys[1], len(awake), neurons) if modified else []
        chosen += [([], [])] * (len(points) - len(chosen))
        directions = draws(keys[2], len(points), neurons)
        for i, (theta, sets) in enumerate(zip(points, chosen, strict=True)):
            matrix = exact.jacobian(theta, problem, *sets)
            if i < len(awake):
                found["values"] += [regularity(matrix, size) for size in sizes]
            else:
                found["asleep"].append(regularity(matrix, special))
            other = exact.moved(theta, directions[i], Fraction(1, 512))
            if component(theta, problem) == component(other, problem):
                found["pairs"] += 1
                found["exceptional"] |= shared_step_sizes(matrix, exact.jacobian(other, problem, *sets))
    return found


def shared_step_sizes(*matrices: list[list[Rational]]) -> set[float]:
    """The step sizes for which the map is singular at both of two Jacobians."""
    spectra = []
    for matrix in matrices:
        values = np.linalg.eigvals([exact.floats(row) for row in matrix])
        spectra.append(values[(abs(values.imag) < 1e-9) & (values.real > 1e-9)].real)
    distances = abs(spectra[0][:, None] - spectra[1][None])
    return {round(float(1 / x), 9) for x, row in zip(spectra[0], distances, strict=True) if row.min(initial=1) < 1e-9}


@claim(
    "C.lem4.4",
    source="Lemma 4.4",
    expected=Verdict.HOLDS,
    statement="If f is a polynomial, then for almost all step sizes and all J the Jacobian of the modified step is "
    "regular on an open set of full measure.",
)
def regular_almost_everywhere(key):
    """Exact determinants at random networks, and the step sizes that are the exception."""
    found = determinants(key, CURVED, modified=True)
    least = 1 / (2 * (CURVED.high - CURVED.low))
    numbers = counts(found)
    note = (
        "f is extended by the polynomial itself. One step size is an exception: for 1 / (2 (beta - alpha)) the map is "
        "singular wherever all neurons are inactive, an open set."
    )
    holds = all(found["values"]) and not any(found["asleep"]) and found["exceptional"] == {round(float(least), 9)}
    return Finding(judge(holds), numbers, note)


def counts(found: dict[str, list]) -> dict:
    """The numbers of `determinants`."""
    return {
        "exact determinants, of them zero": [len(found["values"]), found["values"].count(0)],
        "of them negative, so that singular networks lie between": sum(x < 0 for x in found["values"]),
        "pairs of networks of one component": found["pairs"],
        "step sizes for which both are singular": sorted(found["exceptional"]),
        "networks of inactive neurons at the step size 1 / (2 (beta - alpha)), singular": [
            len(found["asleep"]),
            found["asleep"].count(0),
        ],
    }


@claim(
    "C.lem5.2",
    source="Lemma 5.2",
    expected=Verdict.HOLDS,
    statement="With a leak and f a polynomial, the Jacobian of the step is regular on an open set of full measure for "
    "almost all step sizes.",
)
def leaky_regular_almost_everywhere(key):
    """The same for two leaks."""
    rows = {leak: determinants(key, CURVED._replace(leak=leak), modified=False) for leak in LEAKS}
    numbers = {f"leak {float(leak)}": counts(found) for leak, found in rows.items()}
    holds = all(all(found["values"] + found["asleep"]) and not found["exceptional"] for found in rows.values())
    return Finding(judge(holds), numbers, "No step size was met for which a whole component is singular.")


@claim(
    "C.lem5.1",
    source="Lemma 5.1",
    expected=Verdict.HOLDS,
    statement="The leaky gradient is continuously differentiable on U_1, with a symmetric Jacobian, locally Lipschitz "
    "if f is Lipschitz; and a rational function on each component of U_inf if f is a polynomial.",
)
def leaky_gradient(key):
    """As for Lemma 4.3, without J; and the reduction to a ReLU network of twice the width, exactly."""
    keys = jax.random.split(key, 4)
    roughness, jumps, symmetric, reduced, rational = [], [], [], [], []
    for leak in LEAKS:
        problem = CURVED._replace(leak=leak)
        for theta, direction in zip(regular_points(keys[0]), draws(keys[1], 12, 3), strict=True):
            roughness.append(max(rough(theta, problem, direction)))
            symmetric.append(exact.is_symmetric(exact.jacobian(theta, problem)))
            reduced.append(is_reduced(theta, problem))
        theta, _ = next(special_points(keys[0], problem))
        jumps.append(rough(theta, problem, direction)[0])
        points = zip(draws(keys[2], 12, 2), draws(keys[3], 12, 2), strict=True)
        rational += [is_rational(theta, d, problem) for theta, d in points if component(theta, problem)]
    numbers = {
        "networks, of them with a symmetric Jacobian": [len(symmetric), sum(symmetric)],
        "change of the Jacobian and error of the difference quotient over 1e-9, largest": float(max(roughness)),
        "change of the Jacobian at semi-inactive neurons, outside U_1": float(min(jumps)),
        "segments of random components on which the gradient is rational": [sum(rational), len(rational)],
        "L o P and its gradient are those of the leaky network": [sum(reduced), len(reduced)],
    }
    holds = max(roughness) < ROUGH * SMALL < min(jumps) and all(symmetric + rational + reduced)
    return Finding(judge(holds), numbers)


def regular_points(key) -> Iterator[list[Fraction]]:
    """Networks of U_1: random ones, with equal breakpoints, and with neurons of w = 0, semi-active and inactive."""
    for theta in draws(key, 3, 3):
        yield theta
        for j, weight, bias in ((1, Fraction(-4), Fraction(1)), (2, Fraction(0), HALF), (2, Fraction(0), -HALF)):
            changed = list(theta)
            changed[0], changed[3] = Fraction(2), -HALF  # breakpoint 1/4
            changed[j], changed[3 + j] = weight, bias
            yield changed


def is_reduced(theta: list[Fraction], problem: Problem) -> bool:
    """Whether L_zeta = L o P with P(w, b, v, c) = (w, -w, b, -b, v, -zeta v, c), and the same of the gradients."""
    w, b, v, c = exact.split(theta)
    doubled = [*w, *(-x for x in w), *b, *(-x for x in b), *v, *(-problem.leak * x for x in v), c]
    relu = problem._replace(leak=Fraction(0))
    *parts, dc = exact.split(exact.gradient(doubled, relu))
    dw, db, dv = (np.reshape(part, (2, len(w))) for part in parts)
    pulled = [*(dw[0] - dw[1]), *(db[0] - db[1]), *(dv[0] - problem.leak * dv[1]), dc]
    return pulled == exact.gradient(theta, problem) and exact.risk(doubled, relu) == exact.risk(theta, problem)
