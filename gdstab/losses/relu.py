"""Shallow ReLU and leaky ReLU networks of one variable with their exact L2 risk on an interval (paper C)."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._types import Scalar, Theta
from gdstab._validate import check_count, is_concrete, whole
from gdstab.losses import relu_pieces
from gdstab.losses.relu_spline import Problem
from gdstab.losses.relu_target import PiecewiseLinear, Polynomial


def _as_target(value):
    """A sequence of numbers is a polynomial, lowest coefficient first."""
    if isinstance(value, np.ndarray):
        value = tuple(value.tolist())
    return Polynomial(tuple(value)) if isinstance(value, list | tuple) else value


def _as_interval(value):
    """Two floats, each a leaf that the engine traces."""
    try:
        return tuple(float(end) if isinstance(end, int | float | np.number) else end for end in value)
    except TypeError as error:
        raise ValueError(f"interval: expected two numbers (alpha, beta), got {value!r}") from error


class ShallowReLU(eqx.Module):
    r"""Exact L2 risk of a shallow network, $L(\theta) = \int_\alpha^\beta (N_\theta(x) - f(x))^2\,dx$.

    The network is $N_\theta(x) = c + \sum_j v_j \max(w_j x + b_j, \zeta (w_j x + b_j))$ with $\theta = (w, b, v, c)$,
    flat of length $3 N + 1$ or a tuple of four arrays. The integral is a closed form between breakpoints, a sum of
    squares; NaN in gives NaN out.

    The gradient is exact wherever it exists: at every neuron but the degenerate ones ($w_j = b_j = 0$) with
    $v_j \ne 0$, for which `convention` decides. Second derivatives (`jax.hessian`) are exact where they exist, equal
    breakpoints included. Where a breakpoint is exactly $\alpha$ or $\beta$ they are those of the side on which it lies
    outside. Third derivatives are not defined, nor are derivatives with respect to interval, target or leak (the latter
    are refused).

    Parameters
    ----------
    neurons
        The number $N$ of hidden neurons, at least 1.
    interval
        The numbers $\alpha < \beta$.
    target
        The coefficients of a polynomial $f$, lowest first; or a `PiecewiseLinear`, see `from_knots`.
    leak
        The slope $\zeta \in [0, 1)$ of an inactive neuron; 0 is ReLU.
    convention
        Derivatives in $w_j$ and $b_j$ at non-flat degenerate neurons: "zero", or the partial derivative from the "left"
        (Theorem 1.2 of paper C) or from the "right".

    Raises
    ------
    ValueError
        If there is no neuron, the interval is empty, the target is no polynomial and no `PiecewiseLinear` or does not
        cover the interval, the leak is outside $[0, 1)$, or the convention has no such name.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = ShallowReLU(neurons=1, interval=(0.0, 1.0), target=(0.0, 1.0))
    >>> exact, shifted = jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 1.0, 2.0])
    >>> float(loss(exact)), float(loss(shifted))
    (0.0, 4.0)
    """

    neurons: int = eqx.field(static=True, converter=whole)
    interval: tuple[ArrayLike, ArrayLike] = eqx.field(default=(0.0, 1.0), converter=_as_interval)
    target: Polynomial | PiecewiseLinear = eqx.field(default=(0.0, 1.0), converter=_as_target)
    leak: ArrayLike = eqx.field(default=0.0, converter=lambda value: float(value) if isinstance(value, int) else value)
    convention: str = eqx.field(default="zero", static=True)

    def __check_init__(self):
        check_count(self.neurons, "neurons")
        if self.convention not in {"zero", "left", "right"}:
            raise ValueError(f"convention: expected 'zero', 'left' or 'right', got {self.convention!r}")
        if is_concrete(self.leak) and not 0 <= float(self.leak) < 1:
            raise ValueError(f"leak: expected a slope in [0, 1), got {self.leak}; 1 would make the network affine")
        if not isinstance(self.target, Polynomial | PiecewiseLinear):
            raise ValueError(
                f"target: expected polynomial coefficients or a PiecewiseLinear, got {type(self.target).__name__}; "
                "interpolate other functions at knots, by ShallowReLU.from_knots"
            )
        if len(self.interval) != 2:
            raise ValueError(f"interval: expected two numbers (alpha, beta), got {len(self.interval)}")
        if all(is_concrete(end) for end in self.interval):
            self._check_interval()

    @classmethod
    def from_knots(
        cls, neurons: int, knots, values, *, leak: ArrayLike = 0.0, convention: str = "zero"
    ) -> "ShallowReLU":
        """The loss against straight pieces between knots, on the interval from the first knot to the last.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> hat = ShallowReLU.from_knots(2, (0.0, 1.0, 2.0), (0.0, 1.0, 0.0))
        >>> float(hat(jnp.array([1.0, 1.0, 0.0, -1.0, 1.0, -2.0, 0.0])))
        0.0
        """
        target = PiecewiseLinear(knots, values)
        return cls(neurons, (float(target.knots[0]), float(target.knots[-1])), target, leak, convention)

    def __call__(self, theta: Theta) -> Scalar:
        """The loss at one point."""
        return self.on_lanes(theta)

    def on_lanes(self, theta: Theta) -> Float[Array, "*lanes"]:
        """The loss at many points, the lanes on a trailing axis of every array of `theta`."""
        parts = self._split(theta)
        return relu_pieces.risk(self.convention, self._problem(parts), parts)

    def one_block(self, theta) -> bool:
        """Whether rounding depends on the lanes side by side: it does. See `ensembles.run`."""
        del theta
        return True

    @property
    def lanes_together(self) -> int:
        """How many lanes a CPU should work through together, at the least: sorting takes many short operations."""
        return 128 if relu_pieces.sorts(self.neurons, self.target) else 32

    loss_floor: ClassVar[float] = 0.0
    r"""A lower bound of the infimum, 0.

    Attained by affine targets, and by $K + 1$ straight pieces with $N > K$ neurons; for other targets the infimum
    is larger and not known in closed form.
    """

    def network(self, theta: Theta, x: Float[Array, " points"]) -> Float[Array, " points"]:
        r"""The realisation $N_\theta$ at many points of the line."""
        w, b, v, c = self._split(theta)
        lines = w[:, None] * x[None] + b[:, None]
        return c + jnp.sum(v[:, None] * jnp.where(lines > 0, lines, jnp.asarray(self.leak, w.dtype) * lines), axis=0)

    def gradient(self, theta: Theta, convention: str | None = None) -> Theta:
        r"""The generalised gradient $G$, in the form of `theta`, lanes on trailing axes allowed.

        It agrees with every partial derivative that exists, with `jax.grad` of the loss everywhere, and satisfies
        $w_j G_{w_j} + b_j G_{b_j} = v_j G_{v_j}$. Its Jacobian (`jax.jacfwd`) is the Hessian where that exists.

        Parameters
        ----------
        theta
            The point.
        convention
            At non-flat degenerate neurons, see the class; by default that of the loss.

        Examples
        --------
        >>> import jax.numpy as jnp
        >>> dead = jnp.array([0.0, 0.0, 1.0, 0.0])
        >>> loss = ShallowReLU(neurons=1)
        >>> [float(round(loss.gradient(dead, kind)[1], 6)) for kind in ("zero", "left", "right")]
        [0.0, 0.0, -1.0]
        """
        chosen = self.convention if convention is None else convention
        if chosen not in {"zero", "left", "right"}:
            raise ValueError(f"convention: expected 'zero', 'left' or 'right', got {chosen!r}")
        parts = self._split(theta)
        return _join(relu_pieces.gradient(chosen, self._problem(parts), parts), theta)

    def modified_gradient(self, theta: Theta, rising=(), falling=()) -> Theta:
        r"""The modified gradient $G^J$ of paper C, section 4, at one point: differentiable at semi-inactive neurons.

        Neurons of $J_+$ integrate over $[t_j, \beta]$ and those of $J_-$ over $[\alpha, t_j]$, with the breakpoint
        $t_j = -b_j / w_j$ wherever it lies; an integral against the axis counts negative. Outside $[\alpha, \beta]$ the
        target goes on as the polynomial itself, or as its outer straight pieces. Neurons with $w_j = 0$ and those not
        named keep the entries of $G$ (convention "zero"). The Jacobian is `jax.jacfwd` of this function; it is
        symmetric where every named neuron is semi-inactive with the sign of its set (Lemma 4.3), not in general.

        Parameters
        ----------
        theta
            One point, in either form.
        rising, falling
            Indices of the neurons in $J_+$ and in $J_-$.

        Raises
        ------
        ValueError
            If an index is not that of a neuron or is named twice, or for a leaky network, which needs no modification
            (section 5).

        Examples
        --------
        >>> import jax
        >>> import jax.numpy as jnp
        >>> loss = ShallowReLU(neurons=1)
        >>> edge = jnp.array([1.0, -1.0, 3.0, 0.5])  # semi-inactive: the breakpoint is beta
        >>> modified = lambda theta: loss.modified_gradient(theta, rising=(0,))
        >>> round(float(jax.jacfwd(modified)(edge)[1, 1]), 6)  # -f' (v / w) (beta - alpha)
        -3.0
        """
        if not is_concrete(self.leak) or float(self.leak) != 0:
            raise ValueError(f"expected leak = 0 for G^J, got {self.leak}; leaky networks need no modified gradient")
        named = [check_count(j, "neuron", least=0) for j in (*rising, *falling)]
        if len(set(named)) < len(named) or any(j >= self.neurons for j in named):
            raise ValueError(
                f"expected disjoint sets of neurons from 0 to {self.neurons - 1}, got rising {tuple(rising)} and "
                f"falling {tuple(falling)}; name each neuron once"
            )
        parts = self._split(theta)
        if parts[3].ndim:
            raise ValueError(f"expected one point, got lanes of shape {parts[3].shape}; pass theta unbatched")
        modified, upward = (np.isin(np.arange(self.neurons), chosen) for chosen in (named, list(rising)))
        return _join(relu_pieces.modified_gradient(self._problem(parts), parts, modified, upward), theta)

    def _check_interval(self):
        low, high = (float(end) for end in self.interval)
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"interval: expected finite alpha < beta, got ({low}, {high}); swap or widen them")
        if isinstance(self.target, PiecewiseLinear) and is_concrete(self.target.knots):
            first, last = float(self.target.knots[0]), float(self.target.knots[-1])
            if low < first or high > last:
                raise ValueError(f"target: knots from {first} to {last} do not cover ({low}, {high}); add knots")

    def _problem(self, parts):
        dtype = parts[0].dtype
        low, high, leak = (jnp.asarray(value, dtype) for value in (*self.interval, self.leak))
        return Problem(low, high, leak, self.target)

    def _split(self, theta):
        """The parts (w, b, v, c) of either form, each with the lanes behind."""
        n = self.neurons
        if isinstance(theta, tuple | list):
            shapes = [jnp.shape(part) for part in theta]
            lanes = shapes[-1] if len(shapes) == 4 else None
            if lanes is None or shapes[:3] != [(n, *lanes)] * 3:
                raise ValueError(f"expected theta = (w, b, v, c) with w, b, v of shape ({n},), c of (), got {shapes}")
            return tuple(theta)
        if theta.ndim < 1 or theta.shape[0] != 3 * n + 1:
            raise ValueError(f"expected theta = (w, b, v, c) of length {3 * n + 1}, got shape {theta.shape}")
        return theta[:n], theta[n : 2 * n], theta[2 * n : 3 * n], theta[3 * n]


def _join(parts, theta):
    """Parts in the form of `theta`."""
    if isinstance(theta, tuple | list):
        return type(theta)(parts)
    return jnp.concatenate([*parts[:3], parts[3][None]])
