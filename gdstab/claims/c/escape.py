"""Paper C, sections 1, 4 and 5: where descent of shallow networks ends, over many starts and step sizes."""

from functools import lru_cache, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, sampling
from gdstab.claims import problems
from gdstab.claims.c.landscape import PROBLEMS
from gdstab.claims.problems import DESCENT
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept, require
from gdstab.figures import style
from gdstab.losses import ShallowReLU, relu_pieces
from gdstab.losses.relu_spline import Problem
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.theory import relu
from gdstab.theory.relu import NeuronType

SETTINGS = ((2, 0, 80_000), (2, 1, 10_000), (3, 2, 4000), (4, 0, 2000), (5, 1, 500))
"""Neurons, problem, starts."""
NEAR = (("semi-active", "inactive"), ("semi-active", "semi-inactive+"), ("semi-inactive+", "semi-inactive-"), (1, 2))
"""Families of saddles of S, around which descent starts as well."""
LOW = 1e-2
"""A limiting loss below this times the lowest level is zero: nothing else is left there."""
MAX_STEPS, SETTLE, ROUNDS = 20_000, 300, 2


class Ends(NamedTuple):
    """How the descents of one setting ended: the last points and losses, and a mask for each kind of end."""

    neurons: int
    problem: dict
    points: np.ndarray
    step_sizes: np.ndarray
    losses: np.ndarray
    zero: np.ndarray
    trapped: np.ndarray  # at a local minimum that is no global one
    saddle: np.ndarray  # at rest elsewhere
    moving: np.ndarray  # the budget ended first
    gone: np.ndarray  # it left every bounded set

    def counts(self, within=slice(None)) -> dict[str, int]:
        """How many ended where, of those in a mask."""
        return {name: int(np.sum(getattr(self, name)[within])) for name in self._fields[5:]}


def descend(points, step_sizes, problem: dict, leak: float = 0.0, lowest: float | None = None) -> Ends:
    """Run descent with the left gradient; `lowest` is the least positive loss of a critical point.

    A small loss is no proof of convergence, since a minimum may be unstable at this step size: after `SETTLE` further
    steps what has risen again runs on, `ROUNDS` times. Nor is a small gradient one of a saddle: what has one and is no
    minimum runs on as well.
    """
    neurons, leaky = points.shape[1] // 3, leak > 0
    loss = ShallowReLU(neurons, **problem, leak=leak, convention="left")
    low = LOW * (relu.level(neurons // 2 * 2, **problem) if lowest is None else lowest)
    # Always all lanes, since another number of them compiles anew; those that are done cost nothing.
    run = partial(ensembles.run, DESCENT, loss, product=False)
    for _ in range(ROUNDS):
        found = run(points, step_sizes, StoppingRule(low, 1e-8, 1e3, MAX_STEPS))
        later = run(found.theta, step_sizes, StoppingRule(0.0, 0.0, 1e3, SETTLE))
        points, losses = np.array(later.theta), np.array(later.loss)
        if not np.any((found.loss <= low) & ~(losses <= low)):
            break
    moving = (found.outcome == Outcome.UNDECIDED) | (found.loss <= low)
    gone = (found.outcome >= Outcome.CYCLING) | (later.outcome >= Outcome.CYCLING)
    awake = np.flatnonzero((losses > low) & ~moving & ~gone & ~is_trapped(points, problem, leaky))
    if awake.size:
        more = run(points[awake], step_sizes[awake], StoppingRule(low, 0.0, 1e3, MAX_STEPS))
        points[awake], losses[awake], gone[awake] = more.theta, more.loss, more.outcome >= Outcome.CYCLING
        moving[awake] = [not relu.is_critical(theta, **problem, leak=leak, tol=1e-7) for theta in more.theta]
    zero = losses <= low
    rest, trapped = ~(zero | moving | gone), is_trapped(points, problem, leaky)
    return Ends(
        neurons, problem, points, step_sizes, losses,
        zero, rest & trapped, rest & ~trapped, moving & ~zero & ~gone, gone & ~zero,
    )  # fmt: skip


def is_trapped(points: np.ndarray, problem: dict, leaky: bool) -> np.ndarray:
    """Proposition 4.5 (ii) for what comes to rest, [lanes]: neurons inactive, or about to be semi-inactive.

    A leaky network has no such minima. Descent shrinks the distance of such a breakpoint from the end by a factor at
    every step, so that it stays inside.
    """
    w, _, v, _ = relu.split_parameters(points)
    types = relu.neuron_types(points, interval=problem["interval"], tol=0.0)
    return np.all((types == NeuronType.INACTIVE) | (at_ends(points, problem) & (problem["target"][1] * v * w < 0)),
                  axis=-1) & (not leaky)  # fmt: skip


def at_ends(points: np.ndarray, problem: dict) -> np.ndarray:
    """Which neurons are semi-inactive, or have their breakpoint within 1e-4 of an end and little else awake."""
    w, b, _, _ = relu.split_parameters(points)
    values = np.stack([w * end + b for end in problem["interval"]])
    high, low = values.max(axis=0), values.min(axis=0)
    return (high >= 0) & (high < -1e-4 * low)


def step_sizes(key, num: int, problem: dict) -> np.ndarray:
    """Uniform, up to where a standard network is about to lose stability."""
    (alpha, beta), drawn = problem["interval"], jax.random.uniform(key, (num,), minval=0.02, maxval=0.4)
    return np.asarray(drawn) / ((beta - alpha) * max(1, alpha * alpha, beta * beta))


def normal_starts(key, num: int, neurons: int, problem: dict) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal parameters, and step sizes."""
    points, sizes = jax.random.split(key)
    return np.asarray(sampling.gaussian(points, num, 3 * neurons + 1)), step_sizes(sizes, num, problem)


@lru_cache(maxsize=1)
def relu_ends() -> list[Ends]:
    """Descents from normal starts, for every setting."""
    return [Ends(**kept(_descents, i, *setting)) for i, setting in enumerate(SETTINGS)]


def _descents(number: int, neurons: int, which: int, num: int) -> dict:
    starts = normal_starts(jax.random.key(number), num, neurons, PROBLEMS[which])
    return descend(*starts, PROBLEMS[which])._asdict()


def starts_of(setting: int) -> tuple[np.ndarray, np.ndarray]:
    """The starts and step sizes of one of `SETTINGS`."""
    neurons, which, num = SETTINGS[setting]
    return normal_starts(jax.random.key(setting), num, neurons, PROBLEMS[which])


@claim(
    "C.thm1.2",
    source="Theorem 1.2",
    expected=Verdict.HOLDS,
    statement="For an even number N of neurons, an affine target and the left gradient, for almost all step sizes and "
    "starts: descent that converges with a limiting loss below f'^2 (beta - alpha)^3 / (12 (N-1)^4) has the limiting "
    "loss zero.",
)
def below_the_threshold(key):
    """Among runs whose limiting loss falls under the threshold: how many end at a saddle."""
    del key
    rows, saddles, decided, moving = {}, 0, 0, 0
    for ends in relu_ends():
        if ends.neurons % 2 == 0:
            below = ends.losses < relu.threshold(ends.neurons, **ends.problem) * (1 - 1e-9)
            counts = ends.counts(below)
            rows[label(ends)] = {"starts": len(below), "below": int(below.sum())} | counts
            saddles, moving = saddles + counts["saddle"] + counts["trapped"], moving + counts["moving"]
            decided += int(below.sum()) - counts["moving"]
    numbers = {
        "runs": rows,
        "saddles among limiting losses below the threshold": share(saddles, decided),
        "below it and still moving when the budget ended": moving,
    }
    note = (
        f"Starts are standard normal, step sizes uniform. A loss below {LOW} of the lowest level counts as limiting "
        "loss zero once it stays, since no critical point lies there."
    )
    return Finding(judge(saddles == 0), numbers, note, partial(draw_ends, relu_ends()))


def label(ends: Ends) -> str:
    """The setting in words."""
    (alpha, beta), (offset, slope) = ends.problem["interval"], ends.problem["target"]
    target = f"{offset:g} {'-' if slope < 0 else '+'} {abs(slope):g} x" if offset else f"{slope:g} x"
    return f"N = {ends.neurons}, f = {target} on [{alpha:g}, {beta:g}]"


def share(hits: int, num: int) -> dict:
    """A share with its interval; of a few runs nothing is said."""
    require(num > 1000, f"only {num} runs count")
    return problems.share(hits, num)


@claim(
    "C.thm4.7",
    source="Theorem 4.7",
    expected=Verdict.HOLDS,
    statement="Against an affine target, for almost every step size, the starts from which descent converges to a "
    "saddle of S are of measure zero.",
)
def strict_saddles_are_left(key):
    """Descent from everywhere, and from small balls around saddles of S."""
    rows = {label(ends): ends.counts() for ends in relu_ends()}
    for i, pattern in enumerate(NEAR):
        for radius in (1e-2, 1e-4):
            rows[f"within {radius} of {pattern}"] = kept(_counts, jax.random.fold_in(key, i), pattern, radius)
    saddles = sum(counts["saddle"] for counts in rows.values())
    decided = sum(sum(counts.values()) - counts["moving"] for counts in rows.values())
    numbers = {
        "ends": rows,
        "starts": sum(sum(counts.values()) for counts in rows.values()),
        "ends at a saddle, of those that came to rest": share(saddles, decided),
    }
    note = (
        "Around saddles with a semi-inactive neuron many starts are inactive there at once; they end at local minima, "
        "which are not in S."
    )
    return Finding(judge(saddles == 0), numbers, note)


def _counts(key, pattern, radius: float) -> dict[str, int]:
    return from_a_ball(key, pattern, PROBLEMS[0], radius).counts()


def from_a_ball(key, pattern, problem: dict, radius: float, num: int = 2000, members: int = 40) -> Ends:
    """Descents from balls around random members of a family of critical points."""
    families, noise, sizes = jax.random.split(key, 3)
    centres = [relu.critical_point(pattern, **problem, key=k) for k in jax.random.split(families, members)]
    around = sampling.ball(noise, num, 3 * len(pattern) + 1, radius)
    return descend(np.repeat(centres, num // members, axis=0) + around, step_sizes(sizes, num, problem), problem)


@claim(
    "C.lem4.2",
    source="Lemma 4.2",
    expected=Verdict.HOLDS,
    statement="Where descent converges to a network whose semi-inactive neurons are J, it is from some step on the "
    "descent along G^J.",
)
def descent_along_the_modified_gradient(key, num_steps: int = 500):
    """Compare G^J with G along orbits that end at semi-inactive neurons, and follow neurons that fell asleep."""
    del key
    ends, problem = relu_ends()[0], PROBLEMS[0]
    points, sizes = starts_of(0)
    limit = at_ends(ends.points, problem)
    lanes = np.flatnonzero(ends.trapped & limit.any(axis=1))[:1000]
    modified, rising = limit[lanes], ends.points[lanes][:, :2] > 0
    path, apart = (np.asarray(part) for part in follow(
        ShallowReLU(2, **problem), points[lanes], sizes[lanes], modified, modified & rising, num_steps))  # fmt: skip
    types = relu.neuron_types(path, interval=problem["interval"], tol=0.0)
    matched = np.isin(types, (NeuronType.TYPE_2, NeuronType.SEMI_INACTIVE)) & ((path[..., :2] > 0) == rising[:, None])
    since = [first_of_the_rest(row) for row in np.all(matched | ~modified[:, None], axis=-1)]
    equal = [first_of_the_rest(row) for row in apart < 1e-12]
    asleep = types == NeuronType.INACTIVE
    frozen = np.diff(path[..., :6].reshape(*path.shape[:2], 3, 2), axis=1).any(axis=2)
    numbers = {
        "orbits, sets J": [len(lanes), len({(*m, *r) for m, r in zip(modified, modified & rising, strict=True)})],
        "first step from which the neurons of J are of type 2 or semi-inactive, the latest": max(since),
        "orbits that need such a step, n > 0": int(np.sum(np.array(since) > 0)),
        "orbits on which G^J and G differ from there on": int(np.sum(np.array(equal) > np.array(since))),
        "orbits on which they differ before": int(np.sum(np.array(equal) > 0)),
        "steps of inactive neurons, of these with a change": [
            int(asleep[:, :-1].sum()),
            int((frozen & asleep[:, :-1]).sum()),
        ],
        "neurons of J that were ever inactive": int((asleep & modified[:, None]).sum()),
    }
    holds = all(e <= n < num_steps - 100 for e, n in zip(equal, since, strict=True)) and max(equal) > 0
    holds = holds and not (frozen & asleep[:, :-1]).any() and not (asleep & modified[:, None]).any()
    return Finding(judge(holds), numbers, "Equality of the orbits follows step by step from that of the gradients.")


def first_of_the_rest(holds: np.ndarray) -> int:
    """The index from which on a mask holds; its length if it does not in the end."""
    wrong = np.flatnonzero(~holds)
    return int(wrong[-1]) + 1 if wrong.size else 0


@eqx.filter_jit
def follow(loss: ShallowReLU, points, step_sizes, modified, rising, num_steps: int):
    """Orbits [lanes, steps, n] of descent, and the largest difference of G^J and G at each point."""
    problem = Problem(*map(jnp.asarray, (*loss.interval, loss.leak)), loss.target)

    def orbit(theta, step_size, modified, rising):
        def step(theta, _):
            parts, G = jnp.split(theta[:-1], 3), loss.gradient(theta)
            *rows, _ = relu_pieces.modified_gradient(problem, (*parts, theta[-1]), modified, rising)
            return theta - step_size * G, (theta, jnp.abs(jnp.concatenate(rows) - G[:-1]).max())

        return jax.lax.scan(step, theta, length=num_steps)[1]

    return jax.vmap(orbit)(points, step_sizes, modified, rising)


@claim(
    "C.prop4.8",
    source="Proposition 4.8",
    expected=Verdict.HOLDS,
    statement="(i) For almost all step sizes and starts, descent that converges to a network without degenerate "
    "neurons with a loss below f'^2 (beta - alpha)^3 / 12 has the limiting loss zero. (ii) For even N a limiting loss "
    "between 0 and f'^2 (beta - alpha)^3 / (12 (N-1)^4) excludes degenerate neurons.",
)
def limits_without_degenerate_neurons(key):
    """(i) on the ensembles, for odd N as well; (ii) by the levels, and what odd N are left out for."""
    del key
    rows, saddles, decided = {}, 0, 0
    for ends in relu_ends():
        w, b, _, _ = relu.split_parameters(ends.points)
        alive = np.all(np.abs(w) + np.abs(b) > 1e-6, axis=-1)
        below = alive & (ends.losses < relu.level(0, **ends.problem) * (1 - 1e-9))
        counts = ends.counts(below)
        rows[label(ends)] = counts | {"with a degenerate neuron": int(np.sum(~alive))}
        saddles += counts["saddle"] + counts["trapped"]
        decided += int(below.sum()) - counts["moving"]
    printed = {N: relu.level(0) / (N - 1) ** 4 for N in range(2, 9)}
    fewer = {N: min(relu.levels(N - 1).values()) for N in printed}  # a neuron degenerate, the others critical
    even = all(fewer[N] >= printed[N] * (1 - 1e-12) for N in printed if N % 2 == 0)
    odd = [N for N in printed if N % 2 and fewer[N] < printed[N]]
    pinned = relu.critical_point((1, 2, "degenerate"))
    rest = ensembles.run(DESCENT, ShallowReLU(3), pinned[None], 0.1, StoppingRule(None, max_steps=100))
    fixed = bool(np.abs(rest.theta - pinned).max() < 1e-12 and rest.loss[0] < printed[3])
    numbers = {
        "(i) ends with a loss below the best constant's": rows,
        "(i) saddles among them": share(saddles, decided),
        "(ii) even N up to 8: no level of fewer neurons below the bound": even,
        "odd N for which there is one": odd,
        "N = 3: descent rests at a saddle with a degenerate neuron, loss and bound": [rest.loss[0], printed[3]],
    }
    note = "(ii) is about even N only, and odd N do violate its bound; theirs is f'^2 (beta - alpha)^3 / (12 N^4)."
    require(fixed and len(odd) == 3, "the example for odd N does not rest")
    return Finding(judge(saddles == 0 and even), numbers, note)


def draw_ends(found: list[Ends]):
    """The shares of the ends, a bar for each setting."""
    colours = {"zero": "#0072b2", "trapped": "#e69f00", "saddle": "#d55e00", "moving": "#999999", "gone": "#000000"}
    names = {"zero": "loss zero", "trapped": "local minimum", "saddle": "saddle", "moving": "still moving",
             "gone": "diverged"}  # fmt: skip
    with style.style():
        figure = style.new_figure(6.6, 2.6)
        axes = figure.subplots()
        left = np.zeros(len(found))
        for kind, colour in colours.items():
            shares = np.array([getattr(ends, kind).mean() for ends in found])
            total = sum(int(getattr(ends, kind).sum()) for ends in found)
            axes.barh(range(len(found)), shares, left=left, color=colour, label=f"{names[kind]} ({total})")
            left += shares
        axes.set_yticks(range(len(found)), [label(ends) for ends in found])
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of starts")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure
