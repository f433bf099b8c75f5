r"""The local centre-stable manifold of an update map at a fixed point: its splitting, its graph, and how it is found.

With the Jacobian $J$ of the map $G$ at $z$, space splits into $E^{cs}$ (multipliers $|\mu| \le 1$) and $E^u$
($|\mu| > 1$). Points whose orbits stay near $z$ lie on a graph $\{z + y + \Psi(y) : y \in E^{cs}\}$, $\Psi$ into $E^u$
(Theorem 2.2 of paper C: Cheridito, Jentzen and Rossmannek). $J$ may be singular.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Complex, Float, Int

from gdstab import _arguments as arguments
from gdstab._clocks import whole
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, State
from gdstab._validate import as_state, check_autonomous, check_count, check_loss, check_positive
from gdstab.stability.maps import Splitting, jacobian, splitting

MAX_LENGTH = 20_000
"""Longest orbit that is worked with; the least unstable multiplier must then exceed 1 by 0.002 in float64."""
FACTOR = 0.5
"""The contraction that the proof of Theorem 2.2 asks for."""
_HALVINGS = 30


class OnGraph(NamedTuple):
    r"""A point of the manifold, and how it was found."""

    point: Float[Array, " n"]
    height: Float[Array, " u"]  # Psi(y), in the basis of E^u
    orbit: Float[Array, "length n"]  # of the point
    factor: Scalar  # largest ratio of two successive changes of the orbit: the measured contraction
    change: Scalar  # the last change, in the weighted norm
    iterations: Int[Array, ""]
    reach: Scalar  # of the orbit from z, in adapted coordinates; up to radius / 2 the map was not cut off


class _Flat(eqx.Module):
    """The update map on the floating-point entries of the state, as one vector."""

    rule: Any
    loss: Any
    state: Any  # of the same structure; only its other entries (step counters) matter
    step_size: Float[Array, ""]

    def __call__(self, x):
        with jax.default_matmul_precision("highest"):
            moved = self.rule.step(self.loss, self.unravel(x), self.step_size)
        return ravel_pytree(eqx.filter(moved, eqx.is_inexact_array))[0]

    def unravel(self, x):
        """The whole state whose floating-point entries are x."""
        moving, fixed = eqx.partition(self.state, eqx.is_inexact_array)
        return eqx.combine(ravel_pytree(moving)[1](x), fixed)


class CentreStable(eqx.Module):
    r"""The graph of a centre-stable manifold, by the contraction of the proof of Theorem 2.2; made by `centre_stable`.

    In adapted coordinates $x = Q^{-1}(\theta - z) = (x^+, x^-)$, $Q$ holding the bases of $E^{cs}$ and $E^u$, the map
    is $\mathrm{diag}(B, C)\,x + \eta(x)$. The orbit of the point above $y$ is the fixed point of

    $(Tx)_k^+ = B^k y + \sum_{i \le k} B^{k-i} \eta^+(\rho(x_{i-1}))$,
    $(Tx)_k^- = -\sum_{i > k} C^{k-i} \eta^-(\rho(x_{i-1}))$,

    in the norm $\sup_k \omega_k |x_k|$, $\omega_k = \mu^{-k/2}$, $\mu$ the least unstable modulus; the cut-off $\rho$
    (`cut_off`) is the identity up to radius / 2. The sums are cut after `length` terms, where $\mu^{-k}$ is rounding.
    Written for one y: batch by `vmap`.
    """

    step: _Flat  # the map on flat states
    fixed_point: Float[Array, " n"]
    basis: Float[Array, "n n"]  # Q, the basis of E^cs first
    inverse: Float[Array, "n n"]  # of Q
    linear: Float[Array, "n n"]  # diag(B, C)
    unstable_inverse: Float[Array, "u u"]  # of C
    multipliers: Complex[Array, " n"]  # largest modulus first
    radius: Scalar
    length: int = eqx.field(static=True)
    max_iterations: int = eqx.field(static=True)

    @property
    def dim(self) -> int:
        """Dimension of the manifold, that of E^cs."""
        return self.linear.shape[0] - self.unstable_inverse.shape[0]

    @property
    def mu(self) -> Scalar:
        """The least modulus of an unstable multiplier."""
        return jnp.abs(self.multipliers[self.unstable_inverse.shape[0] - 1])

    def evaluate(self, y: Float[Array, " s"]) -> OnGraph:
        """The point of the graph above y, given in the basis of E^cs, by iterating T from the orbit at rest."""
        if y.shape != (self.dim,):
            raise ValueError(f"expected y of shape ({self.dim},), got {y.shape}; one coordinate for each basis vector")
        return staged(self._evaluate, y)

    def _evaluate(self, y):
        dtype, n = self.fixed_point.dtype, self.fixed_point.size
        weights = self.mu ** (-0.5 * jnp.arange(self.length, dtype=dtype))
        size = lambda orbit: jnp.max(weights * jnp.linalg.norm(orbit, axis=1))  # noqa: E731
        noise = 8 * jnp.finfo(dtype).eps * (jnp.linalg.norm(self.fixed_point) + jnp.linalg.norm(y))

        def advance(carry):
            orbit, last, factor, count = carry
            moved = self._improve(y, orbit)
            change = size(moved - orbit)
            ratio = jnp.where((count > 0) & (change > 16 * noise), change / last, 0)
            return moved, change, jnp.maximum(factor, ratio), count + 1

        start = (jnp.zeros((self.length, n), dtype), jnp.asarray(jnp.inf, dtype), jnp.zeros((), dtype), 0)
        orbit, change, factor, count = lax.while_loop(
            lambda carry: (carry[1] > noise) & (carry[3] < self.max_iterations), advance, start
        )
        return OnGraph(
            self._back(orbit[0]), orbit[0, self.dim :], jax.vmap(self._back)(orbit), factor, change,
            jnp.asarray(count), jnp.max(jnp.linalg.norm(orbit, axis=1)),
        )  # fmt: skip

    def coordinates(self, x: Float[Array, " n"]) -> tuple[Float[Array, " s"], Float[Array, " u"]]:
        """The adapted coordinates of a state: along E^cs and along E^u."""
        inside = jnp.matmul(self.inverse, x - self.fixed_point, precision="highest")
        return inside[: self.dim], inside[self.dim :]

    def height_above(self, x: Float[Array, " n"]) -> Float[Array, " u"]:
        """How far a state lies off the graph, along E^u."""

        def above(x):
            y, height = self.coordinates(x)
            return height - self.evaluate(y).height

        return staged(above, x)

    def invariance(self, y: Float[Array, " s"]) -> Scalar:
        """Length by which the map takes the point above y off the graph; small where orbits stay uncut."""
        return staged(lambda y: jnp.linalg.norm(self.height_above(self.step(self.evaluate(y).point))), y)

    def inside(self, found: OnGraph) -> Bool[Array, ""]:
        """Whether the whole orbit was left uncut, so that it is one of the map itself."""
        return found.reach <= self.radius / 2

    def _back(self, x):
        return self.fixed_point + jnp.matmul(self.basis, x, precision="highest")

    def _remainder(self, x):
        """What the map does beyond its derivative, cut off."""
        x = cut_off(x, self.radius)
        moved = jnp.matmul(self.inverse, self.step(self._back(x)) - self.fixed_point, precision="highest")
        return moved - jnp.matmul(self.linear, x, precision="highest")

    def _improve(self, y, orbit):
        """One application of T."""
        beyond = jax.vmap(self._remainder)(orbit)
        B = self.linear[: self.dim, : self.dim]

        def forward(x, extra):
            return jnp.matmul(B, x, precision="highest") + extra, x

        def backward(x, extra):
            x = jnp.matmul(self.unstable_inverse, x - extra, precision="highest")
            return x, x

        _, stable = lax.scan(forward, y, beyond[:, : self.dim])
        _, unstable = lax.scan(backward, jnp.zeros_like(orbit[0, self.dim :]), beyond[:, self.dim :], reverse=True)
        return jnp.concatenate([stable, unstable], axis=1)


def cut_off(x: Float[Array, " n"], radius: Scalar | float) -> Float[Array, " n"]:
    r"""The map $\rho_r$ of Lemma 6.1: smooth, the identity up to r / 2, 0 from r on, with slope at most $6 \sqrt n$.

    $\rho_r(x) = x\,\sigma(4|x|^2/r^2)$, where $\sigma(z) = 1 / (1 + e^{3/(1-z) + 3/(4-z)})$ between 1 and 4.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> [cut_off(jnp.array([size, 0.0]), 2.0).tolist() for size in (1.0, 2.0)]
    [[1.0, 0.0], [0.0, 0.0]]
    """
    z = 4 * jnp.sum(x * x) / radius**2
    between = (z > 1) & (z < 4)
    safe = jnp.where(between, z, 2.5)
    return x * jnp.where(between, jax.nn.sigmoid(3 / (safe - 1) - 3 / (4 - safe)), jnp.where(z <= 1, 1, 0))


@entry(host=True)
@arguments.closed_form(loss=arguments.function)
def centre_stable(
    rule,
    loss: LossFn,
    state: State,
    step_size: float,
    *,
    radius: float | None = None,
    tol: float | None = None,
    max_iterations: int = 200,
) -> CentreStable:
    r"""The centre-stable manifold of the update map at a fixed point.

    For a handful of dimensions, up to 20 or so: every evaluation follows an orbit of
    $\log \epsilon^{-1} / \log \mu$ steps, $\mu$ the least unstable modulus, some ten times.

    Parameters
    ----------
    rule
        Anything with `step(loss, state, step_size) -> state`, such as an `updates.UpdateRule`.
    state
        The fixed point; `stability.extend` builds it above a saddle (for descent it is the saddle itself).
    radius
        Of the ball on which the map is used, in adapted coordinates; the graph is that of the map itself for orbits
        within half of it. By default the largest power of 1/2 times $1 + |z|$ with a measured contraction of at most
        `FACTOR` above points of $E^{cs}$ at half that radius, on both sides of every axis and twice as many others.
    tol
        How far over 1 a modulus still counts as centre; $\sqrt\epsilon$ by default.
    max_iterations
        Of T; `change` says what was left.

    Raises
    ------
    ValueError
        If the rule follows a schedule, the state is no fixed point, no multiplier exceeds 1 (then E^cs is everything),
        the least that does is so near to 1 that orbits would be longer than `MAX_LENGTH`, or no radius is found.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> found = centre_stable(gradient_descent(), loss, jnp.zeros(2), 0.1, radius=1.0)
    >>> x, y = found.evaluate(jnp.array([0.3])).point  # the antidiagonal
    >>> round(abs(float(x + y)), 12)
    0.0
    """
    check_autonomous(rule, "centre-stable manifold")
    state = as_state(state)
    check_loss(loss, rule.theta(state))
    max_iterations = check_count(max_iterations, "max_iterations")
    rule = whole(rule, loss, state)
    z = ravel_pytree(eqx.filter(state, eqx.is_inexact_array))[0]
    eps = float(jnp.finfo(z.dtype).eps)
    step = _Flat(rule, loss, state, jnp.asarray(check_positive(step_size, "step_size"), z.dtype))
    image, J = _linearised(step, z)
    moves = float(jnp.linalg.norm(image - z))
    if not moves <= eps**0.5 * (1 + float(jnp.linalg.norm(z))):
        raise ValueError(f"expected a fixed point, got a state that one update moves by {moves:.3g}; see `fixed_point`")
    split = splitting(J, tol=tol)
    Q = np.concatenate([split.stable_basis, split.unstable_basis], axis=1)
    blocks = scipy.linalg.block_diag(split.stable, split.unstable), np.linalg.inv(split.unstable)
    start = 1 + float(jnp.linalg.norm(z)) if radius is None else check_positive(radius, "radius")
    made = CentreStable(
        step, z, *(jnp.asarray(array, z.dtype) for array in (Q, np.linalg.inv(Q), *blocks)),
        jnp.asarray(split.multipliers, np.result_type(z.dtype, np.complex64)), jnp.asarray(start, z.dtype),
        _length(split, eps), max_iterations,
    )  # fmt: skip
    return _widened(made) if radius is None else made


@jit
def _linearised(step: _Flat, x):
    """The image of x under the map, and the Jacobian there."""
    return step(x), jacobian(step.rule, step.loss, step.unravel(x), step.step_size)


def _length(split: Splitting, eps: float) -> int:
    """Steps after which the least unstable direction has grown by 1 / eps."""
    num = split.unstable_basis.shape[1]
    if not num:
        raise ValueError(
            f"expected a multiplier beyond the unit circle, got moduli up to {abs(split.multipliers[0]):.6g}: every "
            "direction is centre-stable, and there is no graph to compute"
        )
    mu = float(np.abs(split.multipliers[num - 1]))
    length = math.ceil(-math.log(eps) / math.log(mu)) + 1
    if length > MAX_LENGTH:
        raise ValueError(
            f"the least unstable multiplier has modulus {mu:.8g}, so near to 1 that orbits of {length} steps are "
            f"needed, more than {MAX_LENGTH}; raise the step size, or `tol` to count it as centre"
        )
    return length


@jit
def _contraction(made: CentreStable, points):
    found = jax.vmap(made.evaluate)(points)
    return jnp.max(found.factor, initial=0), jnp.all(found.iterations < made.max_iterations)


def _widened(made: CentreStable) -> CentreStable:
    """Halve the radius until T contracts as the proof asks."""
    others = np.random.default_rng(0).standard_normal((4 * made.dim, made.dim))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    directions = jnp.asarray(np.concatenate([np.eye(made.dim), -np.eye(made.dim), others]), made.radius.dtype)
    for _ in range(_HALVINGS):
        factor, settled = _contraction(made, directions * made.radius / 2)
        if settled and factor <= FACTOR:
            return made
        made = eqx.tree_at(lambda tree: tree.radius, made, made.radius / 2)
    raise ValueError(
        f"found no radius down to {float(made.radius):.3g} with a contraction of {FACTOR}: the map has a kink at the "
        "fixed point, or pass `radius`"
    )
