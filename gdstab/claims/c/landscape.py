"""Paper C, sections 4.2, 5 and 6.1: critical points against an affine target, strict saddles, and a cut-off."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab.claims.c import exact_relu as exact
from gdstab.claims.c.exact_relu import Problem
from gdstab.claims.registry import Finding, Verdict, claim, judge, kept
from gdstab.losses import ShallowReLU
from gdstab.theory import relu
from gdstab.theory.relu import ROLES, CriticalType, NeuronType

PROBLEMS = (
    {"interval": (0.0, 1.0), "target": (0.0, 1.0)},
    {"interval": (-2.0, 1.5), "target": (3.0, -0.7)},
    {"interval": (1.0, 4.0), "target": (-1.0, 2.0)},
)
SLANTED = Problem(Fraction(-1), Fraction(2), (Fraction(1, 2), Fraction(-3, 4)))
"""The problem of the exact computations."""
SIDES = ROLES[:-1]
"""The neurons without a breakpoint inside that are not degenerate."""
ZIGZAGS = (1, 2), (1, 2, 2), (1, 2, 1, 2)


def patterns() -> Iterator[tuple]:
    """Families of critical points without degenerate neurons: all up to 3 neurons, and some up to 8."""
    for neurons in (1, 2, 3):
        yield from combinations_with_replacement(SIDES, neurons)
    for others in ((), *((role,) for role in (*SIDES, 1, 2)), *combinations_with_replacement(SIDES, 2), (1, 2)):
        yield (1, 2, *others)
    yield from ((1, 2, 3, 4), (4, 2, 1, 3, 3), (2, 1, 3, 4, 1, 1), (1, 2, 3, 4, 5, 6), (1, 6, 2, 5, 3, 4, 6, SIDES[3]))


def predicted(pattern: Sequence) -> CriticalType:
    """What Proposition 4.5 makes of a family, by the words of its statement."""
    if any(isinstance(role, int) for role in pattern):
        return CriticalType.SADDLE_B
    trapped = all(role in {"inactive", "semi-inactive-"} for role in pattern)
    return CriticalType.LOCAL_MINIMUM if trapped else CriticalType.SADDLE_A


def is_in_S(pattern: Sequence) -> bool:
    """Whether Lemma 4.6 applies: a saddle not only of inactive and semi-inactive neurons with f' v w <= 0."""
    return any(isinstance(role, int) or role in {"semi-active", "semi-inactive+"} for role in pattern)


def surroundings(theta: np.ndarray, problem: dict, rng: np.random.Generator, num: int = 64) -> np.ndarray:
    """Points near a critical one: at random, along the least curvature, and with sleeping neurons woken a little."""
    N = theta.size // 3
    near = [theta + radius * rng.normal(size=(num, theta.size)) for radius in (1e-2, 1e-3)]
    types = relu.neuron_types(theta, interval=problem["interval"])
    if NeuronType.DEGENERATE not in types:
        _, direction = relu.escape_direction(theta, **problem)
        near += [theta + size * direction[None] for size in (1e-2, -1e-2, 1e-3, -1e-3, 1e-4, -1e-4)]
    for j in np.flatnonzero(types == NeuronType.DEGENERATE):
        only = np.isin(np.arange(theta.size) % N, j) & (np.arange(theta.size) < 3 * N)
        near.append(theta + 1e-2 * np.where(only, rng.normal(size=(num, theta.size)), 0))
    for j in np.flatnonzero(types == NeuronType.SEMI_INACTIVE):
        for outer in (1e-2, -1e-2):
            woken = theta.copy()
            woken[N + j] += 0.1 * abs(theta[j])
            woken[2 * N + j] += outer
            near.append(woken[None])
    return np.concatenate(near)


def look(pattern: Sequence, problem: dict, key, rng: np.random.Generator) -> dict:
    """One random member of a family, and what holds there."""
    theta = relu.critical_point(pattern, **problem, key=key)
    kinks, x = (
        max([role for role in pattern if isinstance(role, int)], default=0),
        np.linspace(*problem["interval"], 97),
    )
    level, zigzag = relu.level(kinks, **problem), relu.realisation_at_level(kinks, x, **problem)
    loss = relu.risk(theta, **problem)
    around = relu.risk(surroundings(theta, problem, rng), **problem) - loss
    return {
        "critical": bool(relu.is_critical(theta, **problem, tol=1e-11)),
        "as predicted": bool(relu.classify(theta, **problem) == predicted(pattern)),
        "trapped": predicted(pattern) == CriticalType.LOCAL_MINIMUM,
        "error": max(abs(loss / level - 1), np.abs(relu.realise(theta, x) - zigzag).max() / np.ptp(zigzag + x)),
        "falls": bool(around.min() < -1e-11 * level),
        "rises": bool(around.max() > 1e-9 * level),
    }


def _members(key) -> tuple[list[dict], list[dict]]:
    """A member of every family for every problem; and some with a flat degenerate neuron added."""
    rng = np.random.default_rng(0)
    jobs = [(pattern, problem) for pattern in patterns() for problem in PROBLEMS]
    rows = [look(*job, jax.random.fold_in(key, i), rng) for i, job in enumerate(jobs)]
    flat = (("inactive",), ("semi-inactive-",), (1, 2))
    return rows, [look((*rest, "degenerate"), PROBLEMS[1], key, rng) for rest in flat]


@claim(
    "C.prop4.5",
    source="Proposition 4.5",
    expected=Verdict.HOLDS,
    statement="A critical point without degenerate neurons against an affine target, not a global minimum, is no local "
    "maximum; it is a local minimum iff all neurons are inactive, or semi-inactive with f' v w < 0; else a saddle with "
    "a constant realisation or a zigzag of even n; and L = f'^2 (beta - alpha)^3 / (12 (n+1)^4) with n <= N.",
)
def classification(key):
    """Every family of few neurons, by search around it and exactly; and whatever else Newton's method finds."""
    families = list(patterns())
    rows, pinned = kept(_members, key)
    exactly = [is_exactly_critical(key, kinks) for kinks in (0, 2, 4)]
    found, strays = Counter(), 0
    for pattern, problem in zip(ZIGZAGS, PROBLEMS, strict=True):
        _, kinds, losses = critical_points(key, pattern, problem)
        found.update(CriticalType(kind).name for kind in kinds)
        outside = (kinds == CriticalType.SADDLE_DEGENERATE) | (kinds == CriticalType.NOT_DIFFERENTIABLE)
        strays += int(np.sum(~outside & (kinds == CriticalType.UNMATCHED)))
        strays += int(
            np.sum(~outside & (relu.match_levels(losses, len(pattern), **problem, rtol=1e-5) == relu.NO_LEVEL))
        )
    numbers = {
        "families, members": [len(families), len(rows)],
        "members critical, of the predicted kind": [
            sum(r[name] for r in rows) for name in ("critical", "as predicted")
        ],
        "error of loss and realisation, relative": max(row["error"] for row in rows),
        "local minima, a lower point nearby": [sum(r["trapped"] for r in rows), falling(rows, trapped=True)],
        "saddles, a lower point nearby": [sum(not r["trapped"] for r in rows), falling(rows, trapped=False)],
        "a higher point nearby": sum(row["rises"] for row in rows),
        "gradient exactly zero and loss exactly on its level, n = 0, 2, 4": exactly,
        "critical points that Newton's method finds": dict(found),
        "of them without degenerate neurons and of none of these kinds": strays,
        "flat degenerate neuron added: critical, a lower point nearby": [
            sum(row[name] for row in pinned) for name in ("critical", "falls")
        ],
    }
    everything = all(
        row["critical"] and row["as predicted"] and row["rises"] and row["falls"] != row["trapped"] for row in rows
    )
    holds = everything and max(row["error"] for row in rows) < 1e-9 and all(exactly) and strays == 0
    note = (
        "The proposition leaves out degenerate neurons. With a flat one the point stays critical and is a saddle "
        "unless the residual is zero, whatever the other neurons are."
    )
    return Finding(judge(holds and all(row["critical"] and row["falls"] for row in pinned)), numbers, note)


def falling(rows: list[dict], *, trapped: bool) -> int:
    """How many have a lower point nearby."""
    return sum(row["falls"] for row in rows if row["trapped"] == trapped)


def exact_zigzag(key, kinks: int) -> tuple[list[Fraction], tuple[list[int], list[int]]]:
    """A saddle of S on the level n = `kinks` of `SLANTED`, and its J.

    Neuron i has its breakpoint at the i-th place, one more shares the first; two are semi-inactive, at either end, with
    f' v w > 0; one is flat and semi-active.
    """
    low, high, (offset, slope), _ = SLANTED
    sizes = exact.fractions(np.exp(np.asarray(jax.random.normal(key, (2, kinks + 4)))).ravel() + 0.1)
    places = [*range(1, kinks + 1), *([1] if kinks else [])]
    w, b, v = [], [], []
    for number, i in enumerate(places):
        share = 2 * slope / (kinks + 1) * (1 if i > 1 else Fraction(7, 2) if number else Fraction(-5, 2))
        w.append((-1) ** (i + 1) * sizes[number])
        b.append(-w[-1] * (low + i * (high - low) / (kinks + 1)))
        v.append(share / w[-1])
    for end, sign in ((high, 1), (low, -1)):
        w.append(sign * sizes[-1])
        b.append(-w[-1] * end)
        v.append(slope * sign * sizes[-2])
    N = len(w)
    return [*w, Fraction(0), *b, sizes[-3], *v, Fraction(0), offset + slope * (low + high) / 2], ([N - 2], [N - 1])


def is_exactly_critical(key, kinks: int) -> bool:
    """Whether the gradient vanishes in fractions, and the loss is the printed one."""
    theta, _ = exact_zigzag(key, kinks)
    level = SLANTED.target[1] ** 2 * (SLANTED.high - SLANTED.low) ** 3 / (12 * (kinks + 1) ** 4)
    return not any(exact.gradient(theta, SLANTED)) and exact.risk(theta, SLANTED) == level


@eqx.filter_jit
def newton(loss: ShallowReLU, points, num_steps: int = 50):
    """Newton's method for G = 0 from many points, no step longer than 1, flat directions left alone."""

    def step(theta, _):
        values, vectors = jnp.linalg.eigh(jax.jacfwd(loss.gradient)(theta))
        bent = jnp.abs(values) > 1e-9 * jnp.abs(values).max()
        pull = jnp.where(bent, (vectors.T @ loss.gradient(theta)) / jnp.where(bent, values, 1), 0)
        return theta - vectors @ pull / jnp.maximum(1, jnp.linalg.norm(pull)), None

    return jax.vmap(lambda theta: jax.lax.scan(step, theta, length=num_steps)[0])(points)


def starts(key, pattern: Sequence, problem: dict, num: int = 200) -> np.ndarray:
    """Half of them around random members of a family, half normal, in units of the interval."""
    near, far = jax.random.split(key)
    members = [relu.critical_point(pattern, **problem, key=k) for k in jax.random.split(near, num // 20)]
    noise = np.asarray(jax.random.normal(far, (num, 3 * len(pattern) + 1)))
    around = np.repeat(members, 10, axis=0) + 0.3 * noise[: num // 20 * 10]
    return np.concatenate([around, noise[len(around) :] * np.abs(problem["interval"]).max()])


def critical_points(key, pattern: Sequence, problem: dict, leak: float = 0.0) -> tuple[np.ndarray, ...]:
    """What Newton's method finds from the starts of a family, see `by_newton`."""
    return kept(by_newton, starts(key, pattern, problem), problem, leak, of=(key, pattern, problem, leak))


def by_newton(points, problem: dict, leak: float = 0.0) -> tuple[np.ndarray, ...]:
    """The critical points reached, their `CriticalType`, and their losses."""
    points = np.asarray(newton(ShallowReLU(points.shape[1] // 3, **problem, leak=leak), points))
    points = points[np.isfinite(points).all(axis=1) & (np.abs(points).max(axis=1) < 1e3)]
    losses, steepness, scale = relu.risk_and_steepness(points, **problem, leak=leak)
    reached = (steepness < 1e-9 * scale) & ((losses < 1e-12) | (losses > 1e-8))  # no slow approach to zero
    kinds = relu.classify(points[reached], **problem, leak=leak, tol=1e-7)
    return points[reached], kinds, losses[reached]
