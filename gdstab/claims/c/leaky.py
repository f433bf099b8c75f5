"""Paper C, section 5: saddles of leaky networks, and where their descent ends."""

from fractions import Fraction
from functools import lru_cache

import jax
import numpy as np

from gdstab.claims.c import exact_relu as exact
from gdstab.claims.c.escape import Ends, descend, label, normal_starts, share, step_sizes
from gdstab.claims.c.landscape import PROBLEMS, SLANTED, ZIGZAGS, critical_points
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept
from gdstab.theory import relu
from gdstab.theory.relu import CriticalType

LEAKS = 0.1, 0.5, 0.9
SETTINGS = (((1, 2), 0, 0.1, 33_000), ((1, 2), 1, 0.3, 5000), ((1, 2, 2), 2, 0.05, 3000))
"""A family near which Newton's method looks for saddles, problem, leak, starts."""


@claim(
    "C.lem5.3",
    source="Lemma 5.3",
    expected=Verdict.HOLDS,
    statement="For small leaks the Jacobian of the leaky gradient has a strictly negative eigenvalue at every saddle "
    "without degenerate neurons, against an affine target.",
)
def leaky_strict_saddles(key):
    """Every critical point of positive loss that Newton's method finds, and the printed minor in fractions."""
    rows = [leaky_row(key, pattern, leak) for pattern in ZIGZAGS for leak in LEAKS]
    minors = [leaky_minor(leak, bias) for leak in (Fraction(1, 10), Fraction(9, 10)) for bias in (2, -3)]
    numbers = {
        "neurons, leak, points found, largest of their least eigenvalues over the norm": [row[:4] for row in rows],
        "losses of 2 neurons": {str(row[1]): row[4] for row in rows if row[0] == 2},
        "points with breakpoints on a level of ReLU networks": sum(row[5] for row in rows),
        "printed minor of flat neurons of w = 0, in fractions": minors,
    }
    note = (
        "zeta_0 need not be small: up to a leak of 0.9 every critical point of positive loss is strict, and none "
        "is a local minimum. Saddles with breakpoints lie on levels of their own, several for two neurons."
    )
    holds = all(row[2] > 0 and row[3] < -1e-8 for row in rows) and all(minors)
    return Finding(judge(holds), numbers, note)


def leaky_row(key, pattern, leak: float) -> tuple:
    """Neurons, leak, number of points, the largest of their least eigenvalues, their losses, those on ReLU levels."""
    problem, neurons = PROBLEMS[0], len(pattern)
    points, kinds, losses = critical_points(key, pattern, problem, leak)
    found = np.isin(kinds, (CriticalType.SADDLE_A, CriticalType.SADDLE_B, CriticalType.UNMATCHED))
    values = []
    for theta in points[found]:
        H = relu.modified_hessian(theta, **problem, leak=leak, tol=1e-7)
        values.append(np.linalg.eigvalsh(H)[0] / np.linalg.norm(H))
    matched = relu.match_levels(losses, neurons, **problem)[found & (kinds != CriticalType.SADDLE_A)]
    ladder = sorted(set(losses[found].round(9).tolist()), reverse=True)
    return neurons, leak, len(values), float(max(values)), ladder, int(np.sum(matched != relu.NO_LEVEL))


def leaky_minor(leak: Fraction, bias: int) -> bool:
    r"""Whether the minor is $-\zeta^\tau f'^2 (\beta - \alpha)^6 / 36$, $\tau = 1 - \mathrm{sign}(b)$."""
    low, high, (offset, slope), _ = SLANTED
    theta = [Fraction(0), Fraction(bias), Fraction(0), offset + slope * (low + high) / 2]
    H = exact.jacobian(theta, SLANTED._replace(leak=leak))
    minor = exact.determinant([[H[i][k] for k in (0, 2)] for i in (0, 2)])
    return minor == -(leak ** (0 if bias > 0 else 2)) * slope**2 * (high - low) ** 6 / 36


@lru_cache(maxsize=1)
def leaky_ends() -> dict[str, list[Ends]]:
    """Descents from normal starts and from balls of radius 1e-3 around the saddles that Newton's method finds."""
    found = {"everywhere": [], "around saddles": []}
    for number, setting in enumerate(SETTINGS):
        for kind, ends in found.items():
            ends.append(Ends(**kept(_descents, kind, number, *setting)))
    return found


def _descents(kind: str, number: int, pattern, which: int, leak: float, num: int) -> dict:
    problem, keys = PROBLEMS[which], jax.random.split(jax.random.key(number), 4)
    points, kinds, losses = critical_points(keys[0], pattern, problem, leak)
    saddles = np.isin(kinds, (CriticalType.SADDLE_A, CriticalType.SADDLE_B))
    if kind == "everywhere":
        begin = normal_starts(keys[1], num, len(pattern), problem)
    else:
        around = np.repeat(points[saddles], 1000 // saddles.sum() + 1, axis=0)
        around += 1e-3 * np.asarray(jax.random.normal(keys[2], around.shape))
        begin = around, step_sizes(keys[3], len(around), problem)
    return descend(*begin, problem, leak, losses[saddles].min())._asdict()


def counted(kind: str) -> dict[str, dict[str, int]]:
    """How many ended where, by setting."""
    return {
        f"{label(ends)}, leak {setting[2]}": ends.counts()
        for ends, setting in zip(leaky_ends()[kind], SETTINGS, strict=True)
    }


@claim(
    "C.thm5.4",
    source="Theorem 5.4",
    expected=Verdict.HOLDS,
    statement="For small leaks, an affine target and almost every step size, the starts from which leaky descent "
    "converges to a saddle without degenerate neurons are of measure zero.",
)
def leaky_saddles_are_left(key):
    """Descent from everywhere, and from around saddles."""
    del key
    rows = {kind: counted(kind) for kind in leaky_ends()}
    flat = [counts for kind in rows.values() for counts in kind.values()]
    saddles = sum(counts["saddle"] + counts["trapped"] for counts in flat)
    numbers = {
        "ends, from everywhere": rows["everywhere"],
        "ends, from within about 0.001 of a saddle": rows["around saddles"],
        "ends at a saddle, of those that came to rest": share(saddles, sum(c["zero"] for c in flat) + saddles),
    }
    return Finding(judge(saddles == 0), numbers)


@claim(
    "C.cor5.5",
    source="Corollary 5.5",
    expected=Verdict.CORRECTED,
    statement="For small leaks, an affine target and almost all step sizes and starts: where leaky descent converges "
    "to a network without degenerate neurons, the limit of L(f_gamma^k(theta)) is zero.",
)
def leaky_descent_reaches_zero(key, num: int = 2000):
    """No end but zero loss; and where the printed sequence, that of a ReLU network, goes from the same starts."""
    rows, others, decided = {}, 0, 0
    for ends, setting in zip(leaky_ends()["everywhere"], SETTINGS, strict=True):
        w, b, _, _ = relu.split_parameters(ends.points)
        alive = np.all(np.abs(w) + np.abs(b) > 1e-6, axis=-1)
        counts = ends.counts(alive)
        rows[f"{label(ends)}, leak {setting[2]}"] = counts | {"with a degenerate neuron": int(np.sum(~alive))}
        others += counts["saddle"] + counts["trapped"]
        decided += counts["zero"] + counts["saddle"] + counts["trapped"]
    problem, (points, sizes) = PROBLEMS[0], normal_starts(key, num, 2, PROBLEMS[0])
    plain, leaky = (descend(points, sizes, problem, leak, level) for leak, level in ((0.0, None), (0.1, 7.8e-4)))
    differ = leaky.zero & plain.trapped
    numbers = {
        "ends": rows,
        "local minima and saddles among the limits": share(others, decided),
        "L_zeta(f_zeta^k) tends to zero, of these L(f^k) to that of the best constant": [
            int(leaky.zero.sum()),
            int(differ.sum()),
        ],
        "the loss L there, least": float(plain.losses[differ].min()),
    }
    note = (
        "Printed are L and f_gamma, those of a ReLU network; read L^zeta and f_gamma,zeta. From the same starts a ReLU "
        "network often ends at a local minimum."
    )
    return Finding(judge(others == 0 and not differ.any(), others == 0), numbers, note)
