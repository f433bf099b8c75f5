"""Random targets for linear networks, where orbits start, and at which critical values they end.

Inputs are the unit vectors: any other whitened inputs turn the first layer by an orthogonal matrix, and change nothing.
"""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, losses, sampling, theory
from gdstab.losses.pullback import Identity, Pullback
from gdstab.outcomes import Outcome

LEAST_GAP = 0.1
"""Between two singular values of a target, and a third of it between two critical values."""
UNIDENTIFIED, UNDECIDED, GONE = -1, -2, -3
"""In place of the number of a stratum: at no critical value; still moving; diverged or not finite."""
_OFF = 1e-3  # how far the product may be from that of a stratum, relative to the target


class Target(NamedTuple):
    """What a network is to learn, and the critical values of its loss for all strata, the empty set first."""

    map: np.ndarray  # [d_out, d_in]
    singular_values: np.ndarray
    fitted: list[tuple[int, ...]]  # the singular triplets that a stratum fits
    values: np.ndarray  # its loss
    loss: Pullback

    @property
    def minimum(self) -> int:
        """The number of the stratum of global minima."""
        return int(np.argmin(self.values))


def draw_target(widths: tuple[int, ...], seed: int, number: int, dtype) -> Target:
    """A random target with singular values uniform in (0.3, 1.5), drawn again until they and the values are apart."""
    rng = np.random.default_rng([seed, number])
    rank = min(widths[0], widths[-1])
    if LEAST_GAP * (rank - 1) > 0.6:
        raise ValueError(f"{rank} singular values cannot be kept apart: use 7 inputs or outputs at the most")
    for _ in range(100_000):
        sigma = np.sort(rng.uniform(0.3, 1.5, rank))[::-1]
        values = np.sort([theory.strata.critical_value(sigma, fitted) for fitted in theory.strata.fitted_sets(widths)])
        apart = LEAST_GAP / 3 / max(1, 2 ** (rank - 3))  # values crowd as there are more of them
        if np.diff(sigma).max(initial=-np.inf) <= -LEAST_GAP and np.diff(values).min(initial=np.inf) >= apart:
            break
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (widths[-1], widths[0]))
    return make_target(left[:, :rank] * sigma @ right[:rank], widths, dtype)


def diagonal_target(target: Target, widths: tuple[int, ...], dtype) -> Target:
    """The same target in the coordinates of its singular vectors, where rounding keeps the zeros of a start."""
    matrix = np.zeros((widths[-1], widths[0]))
    np.fill_diagonal(matrix, target.singular_values)
    return make_target(matrix, widths, dtype)


def make_target(matrix: np.ndarray, widths: tuple[int, ...], dtype) -> Target:
    """Singular values, strata and loss for a map that is given."""
    sigma = np.linalg.svd(matrix, compute_uv=False)
    fitted = list(theory.strata.fitted_sets(widths))
    values = np.array([theory.strata.critical_value(sigma, chosen) for chosen in fitted])
    network = losses.LinearNetwork(jnp.eye(widths[0], dtype=dtype), jnp.asarray(matrix, dtype))
    return Target(matrix, sigma, fitted, values, Pullback(network, Identity(), float(values.min())))


def random_starts(seed: int, name: tuple[int, ...], num: int, widths: tuple[int, ...], spread: float, dtype) -> tuple:
    """Layers `[num, ...]` with independent normal entries."""
    key = jax.random.key(seed)
    for number in name:
        key = jax.random.fold_in(key, number)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    flat = np.asarray(sampling.gaussian(key, num, sum(map(math.prod, shapes)), spread, dtype=dtype))
    ends = itertools.accumulate(map(math.prod, shapes), initial=0)
    return tuple(
        flat[:, a:b].reshape(-1, *shape) for (a, b), shape in zip(itertools.pairwise(ends), shapes, strict=True)
    )


class Family(NamedTuple):
    """Starts in a set of measure zero that descent does not leave."""

    name: str
    expected: tuple[int, ...]  # the singular triplets that almost all of them come to fit
    theta: tuple  # layers [num, ...]


def special_families(
    seed: int, name: tuple[int, ...], num: int, widths: tuple[int, ...], spread: float, dtype
) -> Iterator[Family]:
    r"""Sets that lead to saddles, for diagonal targets.

    *Invariant set of S*: $W_1$ sees only the inputs in S and those that the target does not see, $W_h$ writes to the
    outputs in S. *Identical neurons* in every hidden layer: the product keeps rank one. *Balanced, rank r*: all but r
    neurons of each hidden layer are dead, in and out.
    """
    rank, least = min(widths[0], widths[-1]), min(widths)
    numbers = itertools.count()

    def draw():
        theta = random_starts(seed, (*name, next(numbers)), num, widths, spread, dtype)
        return [np.array(layer) for layer in theta]

    for fitted in theory.strata.fitted_sets(widths):
        if fitted != tuple(range(least)):
            theta, missed = draw(), [i for i in range(rank) if i not in fitted]
            theta[0][:, :, missed] = 0
            theta[-1][:, [i for i in range(widths[-1]) if i not in fitted], :] = 0
            yield Family(f"invariant set of {label(fitted)}", fitted, tuple(theta))
    if least > 1:
        theta = [layer / math.sqrt(widths[1]) for layer in draw()]  # such networks are as steep as one neuron
        theta[0] = np.repeat(theta[0][:, :1], widths[1], axis=1)
        theta[-1] = np.repeat(theta[-1][:, :, :1], widths[-2], axis=2)
        for j in range(1, len(theta) - 1):
            theta[j] = np.broadcast_to(theta[j][:, :1, :1], theta[j].shape)
        yield Family("identical neurons", (0,), tuple(theta))
    for r in range(1, least):
        key = jax.random.fold_in(jax.random.key(seed), 10_000 + next(numbers))
        factors = jax.random.normal(key, (num, r, widths[-1] + widths[0]), dtype) * spread
        maps = jnp.einsum("nri,nrj->nij", factors[..., : widths[-1]], factors[..., widths[-1] :])
        split = partial(theory.factorisations.balanced_factorisation, widths=widths, fitted=tuple(range(r)))
        yield Family(f"balanced, rank {r}", tuple(range(r)), ensembles.map_points(split, maps))


def label(fitted: tuple[int, ...]) -> str:
    """A set of singular triplets, counted from 1.

    >>> label((0, 2))
    '{1,3}'
    """
    return "{" + ",".join(str(i + 1) for i in fitted) + "}"


class Ends(NamedTuple):
    """Where each of some orbits ended."""

    stratum: np.ndarray  # the number in `Target.fitted`, or one of the negative codes above
    disagrees: np.ndarray  # whether loss and product of the layers name different strata


def identify(target: Target, theta: tuple, loss: np.ndarray, outcome: np.ndarray) -> Ends:
    """The stratum whose critical value is nearest, cross-checked with the product of the layers.

    The product must be that of the stratum, the sum of its singular triplets, to 0.1 %; at a bottleneck that holds for
    every set that fits. Else it is `UNIDENTIFIED`.
    """
    by_loss = np.argmin(np.abs(np.asarray(loss, float)[:, None] - target.values), axis=1)
    product = np.asarray(theta[-1], float)
    for layer in theta[-2::-1]:
        product = product @ np.asarray(layer, float)
    left, sigma, right = np.linalg.svd(target.map, full_matrices=False)
    found = np.einsum("im,nij,mj->nm", left, product, right)
    present = found > sigma / 2
    known = {frozenset(fitted): number for number, fitted in enumerate(target.fitted)}
    sets, inverse = np.unique(present, axis=0, return_inverse=True)
    numbers = np.array([known.get(frozenset(np.flatnonzero(row).tolist()), UNIDENTIFIED) for row in sets])
    by_product = numbers[inverse.ravel()]
    explained = np.einsum("im,nm,mj->nij", left, present * sigma, right)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.linalg.norm(product - explained, axis=(1, 2)) > _OFF * sigma[0]
    converged = outcome == Outcome.CONVERGED
    stratum = np.where(off | (by_product != by_loss), UNIDENTIFIED, by_loss)
    stratum = np.where(converged, stratum, np.where(outcome == Outcome.UNDECIDED, UNDECIDED, GONE))
    return Ends(stratum.astype(np.int16), converged & (by_product != by_loss))
