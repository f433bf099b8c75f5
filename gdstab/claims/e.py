"""Paper E. What is at hand is a summary, so every note says how a statement was read."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from gdstab.claims import problems
from gdstab.claims.a import dynamics as paper_a_dynamics
from gdstab.claims.a import measure as paper_a_measure
from gdstab.claims.a import minima as paper_a_minima
from gdstab.claims.problems import image_of_descent, singularity
from gdstab.claims.registry import Finding, Verdict, claim, judge, require


def _read(finding: Finding, reading: str) -> Finding:
    """The finding of the statement of paper A that this one restates."""
    return finding._replace(note=f"Read: {reading} {finding.note}")


@claim(
    "E.main",
    source="Primary result, with mechanism 1",
    expected=Verdict.CORRECTED,
    statement="There is eta_E such that for eta > eta_E the initial points from which descent converges to a minimum "
    "form a set of measure zero.",
)
def converging_set_is_null(key, num: int = paper_a_measure.POINTS, names=tuple(paper_a_measure.CASES)):
    """Upper bounds for the share of a box, above eta_C; and an eigenvalue on M that stays below 2/eta there."""
    del key
    tables = {name: paper_a_measure.table(name, num) for name in names}
    network = paper_a_measure.CASES["linear network 2-2-2"].loss
    above = paper_a_measure.RATIOS[-1] * paper_a_measure.critical_step(network)
    weak = above * paper_a_measure.weak_eigenvalue()
    numbers = {"eta / eta_C": paper_a_measure.RATIOS, "points in each box": num}
    for name, found in tables.items():
        numbers |= paper_a_measure.as_numbers(name, found)
    numbers["2-2-2 at the largest eta: eta times a positive eigenvalue on M (below 2: eta < eta_E)"] = weak
    corrected = all(paper_a_measure.dichotomy(found.rows) for found in tables.values())
    note = (
        "Read: eta_E of Corollary 6, beyond which every non-zero eigenvalue at every minimum exceeds 2/eta. For "
        "networks there is none, since the least positive eigenvalue tends to 0 along M. With eta_C, where the "
        "largest one exceeds 2/eta at every minimum, it holds: no point of the boxes converged beyond it. Samples only "
        "bound the share; that it is zero is the theorem."
    )
    return Finding(judge(corrected and weak > 2, corrected), numbers, note, partial(paper_a_measure.draw, tables))


@claim(
    "E.thm5",
    source="Theorem 5",
    expected=Verdict.FAILS,
    statement="The non-zero Hessian eigenvalues on M are proper maps, so that they grow without bound.",
)
def eigenvalues_are_proper(key):
    """As Theorem 12 of paper A."""
    return _read(paper_a_minima.every_eigenvalue_is_proper(key), "every non-zero eigenvalue, as Theorem 12 of paper A.")


@claim(
    "E.cor6",
    source="Corollary 6",
    expected=Verdict.FAILS,
    statement="There is eta_E such that for eta > eta_E every non-zero eigenvalue at every minimum exceeds 2/eta.",
)
def a_last_step_size_exists(key):
    """As Corollary 17 of paper A."""
    reading = "for linear networks of any widths, as Corollary 17 of paper A."
    return _read(paper_a_minima.critical_step_sizes(key), reading)


@claim(
    "E.prop9",
    source="Proposition 9",
    expected=Verdict.NOT_TESTABLE,
    statement="A smooth map that is invertible almost everywhere pulls null sets back to null sets.",
)
def invertible_almost_everywhere(key):
    """As Proposition 27 of paper A."""
    reading = "invertible means with invertible Jacobian, as Proposition 27 of paper A."
    return _read(paper_a_dynamics.invertible_almost_everywhere(key), reading)


@claim(
    "E.thm17",
    source="Theorem 17, with mechanism 3",
    expected=Verdict.CORRECTED,
    statement="If L is analytic and one eigenvalue of its Hessian is not constant, descent's map is non-singular.",
)
def one_varying_eigenvalue(key):
    """A network with a varying and a constant eigenvalue, at and off one over the constant one."""
    loss = paper_a_dynamics.decoupled_network()
    points = loss.points(key, 3000, 1, bias=True)
    values = problems.spectra(loss, points)
    constant = 4 * loss.scale
    is_constant = float(np.abs(values - constant).min(axis=1).max())
    at, off = (singularity(loss, points, size / constant) for size in (1.0, 0.9))
    image = np.ptp(image_of_descent(loss, points, 1 / constant)[2])
    numbers = {
        "spread of the smallest and the largest eigenvalue": np.ptp(values[:, [0, -1]], axis=0),
        "distance of 4c from the spectrum, at most": is_constant,
        "eta = 1/(4c)": at,
        "eta = 0.9/(4c)": off,
        "size of the image of the bias at eta = 1/(4c)": image,
    }
    require(is_constant < 1e-12 and np.ptp(values[:, -1]) > 1, "the spectrum is not as the counterexample needs it")
    note = (
        "Read: for every step size, with 'invertible almost everywhere' for 'non-singular'. Besides the varying "
        "eigenvalue there must be none that equals 1/eta everywhere: (y - W_2 tanh(W_1 x) - b)^2 on x = +1, -1 has "
        "one. True for all step sizes but the reciprocals of constant eigenvalues."
    )
    corrected = off["share_singular"] == 0 and image < 1e-12
    return Finding(judge(not at["singular"], corrected), numbers, note)


@claim(
    "E.prop18",
    source="Proposition 18",
    expected=Verdict.CORRECTED,
    statement="A bounded analytic loss cannot have constant Hessian eigenvalues.",
)
def bounded_losses(key):
    """Spread of every eigenvalue over random points, for bounded analytic losses of two and three parameters."""
    points = 3 * jax.random.normal(key, (2000, 3))
    found = {
        "sin y on (x, y)": lambda x: jnp.sin(x[1]),
        "1 / (1 + |x|^2)": lambda x: 1 / (1 + jnp.sum(x**2)),
        "tanh(x y) + cos z": lambda x: jnp.tanh(x[0] * x[1]) + jnp.cos(x[2]),
        "exp(-(1 - xyz)^2)": lambda x: jnp.exp(-((1 - x[0] * x[1] * x[2]) ** 2)),
    }
    spreads = {}
    for name, loss in found.items():
        used = points[:, :2] if "(x, y)" in name else points
        spreads[name] = np.ptp(problems.spectra(loss, used), axis=0)
    values = problems.spectra(found["sin y on (x, y)"], points[:, :2])
    zero = float(np.abs(values).min(axis=1).max())
    numbers = {"spread of every ordered eigenvalue": spreads, "sin y: distance of 0 from the spectrum, at most": zero}
    note = (
        "Read as 'none is constant' it fails for the eigenvalue 0 and for constant losses. What is needed holds: a "
        "bounded analytic loss that is not constant has an eigenvalue that varies, since a constant Laplacian would "
        "make it constant (Liouville)."
    )
    corrected = all(spread.max() > 1e-3 for spread in spreads.values())
    return Finding(judge(zero > 1e-12 and corrected, corrected), numbers, note)


@claim(
    "E.exp1",
    source="First experiment",
    expected=Verdict.FAILS,
    statement="Along M the Hessian eigenvalues of a linear network grow without bound as |theta| tends to infinity.",
)
def experiment_eigenvalues(key):
    """At random minima of growing norm, and along the path and the line where it fails."""
    target, loss = problems.small_problem(key)
    points = problems.random_minima(key, target, paper_a_minima.WIDTHS, 2000)
    norms = np.sqrt(sum(np.sum(np.asarray(leaf) ** 2, axis=(1, 2)) for leaf in points))
    tops = problems.spectra(loss, points)[:, -1]
    path = problems.vanishing_path(key, np.array([1.0, 1e2, 1e4]))
    line = paper_a_minima.invisible_line(key, [0.0, 1e3])
    numbers = {
        "h = 2, random minima: correlation of log norm and log lambda_max": np.corrcoef(np.log(norms), np.log(tops))[
            0, 1
        ],
        "h = 2, path: norms": path[:, 0],
        "h = 2, path: least positive eigenvalue": path[:, 1],
        "h = 3, line: norms": line[:, 0],
        "h = 3, line: least and largest positive eigenvalue": line[:, 1:],
    }
    note = "Read: every non-zero eigenvalue. lambda_max does grow for h = 2; neither does in general."
    grow = path[-1, 1] > path[0, 1] and line[-1, 2] > (1 + 1e-6) * line[0, 2]
    return Finding(judge(bool(grow)), numbers, note)


@claim(
    "E.exp2",
    source="Second experiment",
    expected=Verdict.HOLDS,
    statement="For growing step size the share of initial points of a linear network that converge to a minimum falls "
    "to zero at a finite one.",
)
def experiment_shares(key):
    """The transition of Theorem 16 of paper A."""
    del key
    critical, ratios, shares, _ = paper_a_dynamics.transition()
    converged = np.array([row["share"] for row in shares["converged"]])
    numbers = {"eta_C": critical, "eta / eta_C": ratios, "share converged": converged,
               "95 % intervals": [row["interval"] for row in shares["converged"]]}  # fmt: skip
    note = "Read: points around the flattest minimum. The share falls from nearly 1 to 0 at eta_C, not at an eta_E."
    holds = bool((converged[ratios > 1] == 0).all() and (converged[ratios < 1] > 0.9).all())
    return Finding(judge(holds), numbers, note, paper_a_dynamics.transition_figure)


@claim(
    "E.exp3",
    source="Third experiment",
    expected=Verdict.HOLDS,
    statement="For a network with sigmoid activation det(DG) is non-zero at almost every point.",
)
def experiment_determinant(key):
    """Determinants at random points for several step sizes, on generic data."""
    key_inputs, key_targets, key_points = jax.random.split(key, 3)
    inputs, targets = jax.random.normal(key_inputs, (2, 5)), jax.random.normal(key_targets, (1, 5))
    loss = problems.Shallow(inputs, targets, jax.nn.sigmoid)
    points = loss.points(key_points, 5000, 3, bias=True, spread=2.0)
    found = {f"eta = {size}": singularity(loss, points, size) for size in (0.05, 0.2, 1.0)}
    note = (
        "Read: for generic data and step size. Both signs of the determinant occur, so zeros lie between, a null set."
    )
    holds = all(row["share_singular"] == 0 and not row["constant"] for row in found.values())
    return Finding(judge(holds), found, note)
