r"""Parameters of shallow ReLU networks, the types of their neurons, and what gradient flow conserves.

$N_\theta(x) = c + \sum_{j=1}^N v_j \sigma(w_j x + b_j)$ on $[\alpha, \beta]$, with
$\sigma(z) = \max(z, \zeta z)$ and the leak $\zeta \in [0, 1)$. Parameters $\theta = (w, b, v, c)$ come flat, shape
[..., 3N + 1], or as a tuple of four arrays; leading axes are lanes. Work is done in float64 on the host, and a
tolerance left out follows from the dtype that was given.

Source: [C] Cheridito, Jentzen and Rossmannek, *Gradient descent provably escapes saddle points in the training of
shallow ReLU networks*, sections 4 and 5.
"""

import enum
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import polynomial

from gdstab import _arguments as arguments
from gdstab._numerics import tolerance
from gdstab._types import Theta
from gdstab._validate import check_box

UNIT = (0.0, 1.0)
"""Default interval, and (read as coefficients, lowest first) the default target f(x) = x."""


class NeuronType(enum.IntEnum):
    r"""[C] Definition 4.1, made exclusive; $I_j = \{x \in [\alpha, \beta] : w_j x + b_j \ge 0\}$.

    *Active* is TYPE_1 or TYPE_2; *flat* ($v_j = 0$) is a property of its own, see `is_flat`.
    """

    DEGENERATE = 0  # w = b = 0: the loss is not differentiable there unless the neuron is flat
    INACTIVE = 1  # I_j is empty: descent never moves the neuron again
    SEMI_INACTIVE = 2  # I_j is one end of the interval
    SEMI_ACTIVE = 3  # w = 0 < b: adds a constant
    TYPE_1 = 4  # w != 0, and I_j is the whole interval: adds an affine function
    TYPE_2 = 5  # the breakpoint lies inside the interval


class Parameters(NamedTuple):
    """The four parts of theta, float64; N neurons on the last axis of the first three."""

    w: np.ndarray
    b: np.ndarray
    v: np.ndarray
    c: np.ndarray


@arguments.closed_form()
def split_parameters(theta: Theta) -> Parameters:
    """The parts (w, b, v, c) of flat parameters [..., 3N + 1], or of a tuple of four arrays.

    Raises
    ------
    ValueError
        If the sizes fit no network, there is no neuron, or an entry is not finite.

    Examples
    --------
    >>> split_parameters([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).v.tolist()
    [5.0, 6.0]
    """
    if isinstance(theta, tuple) and len(theta) == 4:
        w, b, v = (np.atleast_1d(np.asarray(part, np.float64)) for part in theta[:3])
        c = np.asarray(theta[3], np.float64)
        if not w.shape == b.shape == v.shape or c.shape != w.shape[:-1]:
            raise ValueError(
                f"expected (w, b, v, c) of shapes [..., N], [..., N], [..., N], [...], got {w.shape}, {b.shape}, "
                f"{v.shape}, {c.shape}; give one weight, bias and outer weight per neuron"
            )
    else:
        flat = np.asarray(theta, np.float64)
        if flat.ndim == 0 or flat.shape[-1] % 3 != 1:
            raise ValueError(
                f"expected 3N + 1 parameters (w, b, v, c) on the last axis, got shape {flat.shape}; pass them flat or "
                "as a tuple of four arrays"
            )
        w, b, v = np.split(flat[..., :-1], 3, axis=-1)
        c = flat[..., -1]
    if w.shape[-1] == 0:
        raise ValueError("expected at least one neuron, got none; pass 3N + 1 parameters with N >= 1")
    bad = sum(int(np.sum(~np.isfinite(part))) for part in (w, b, v, c))
    if bad:
        raise ValueError(f"expected finite parameters, got {bad} entries that are not; drop the lanes that diverged")
    return Parameters(w, b, v, c)


@arguments.closed_form(w=arguments.points, b=arguments.points, v=arguments.points, c=arguments.real)
def join_parameters(w: Any, b: Any, v: Any, c: Any) -> np.ndarray:
    """Flat parameters [..., 3N + 1] from the four parts; undoes `split_parameters`."""
    return np.concatenate([w, b, v, np.asarray(c)[..., None]], axis=-1)


def check_interval(interval: Any) -> tuple[float, float]:
    r"""The ends $\alpha < \beta$ as floats; ValueError otherwise."""
    alpha, beta = check_box((interval,), 1)[0]
    return float(alpha), float(beta)


def check_target(target: Any) -> np.ndarray:
    """Coefficients of a polynomial target, lowest first, without leading zeros; ValueError if it is anything else."""
    try:
        coefficients = np.atleast_1d(np.asarray(target, np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a polynomial's coefficients, lowest first, got {target!r}; pass numbers") from error
    if coefficients.ndim != 1 or coefficients.size == 0 or not np.isfinite(coefficients).all():
        raise ValueError(f"expected finite coefficients of a polynomial, lowest first, got {target!r}; pass a vector")
    return polynomial.polytrim(coefficients)


def check_affine(target: Any) -> tuple[float, float]:
    """Offset and slope of an affine target that is not constant; ValueError says what is known of the others."""
    coefficients = check_target(target)
    if coefficients.size == 1:
        raise ValueError(
            "expected an affine target that is not constant, got a constant: all its critical points are global minima "
            "(reference [5] of the paper); ask `is_critical`"
        )
    if coefficients.size > 2:
        raise ValueError(
            f"expected an affine target, got degree {coefficients.size - 1}: the classification of critical points is "
            "known for affine targets only; ask `is_critical`, and `modified_hessian` for the signs of the curvature"
        )
    return float(coefficients[0]), float(coefficients[1])


def check_leak(leak: Any) -> float:
    """The slope of the activation left of zero, in [0, 1); ValueError otherwise."""
    if not 0 <= leak < 1:
        raise ValueError(f"expected a leak in [0, 1), got {leak}; 0 is ReLU")
    return float(leak)


def default_tolerance(theta: Theta, tol: float | None = None) -> float:
    """The tolerance given, or the root of the machine epsilon of the parameters' dtype."""
    if tol is not None:
        if not 0 <= tol < 1:
            raise ValueError(f"expected a tolerance in [0, 1), got {tol}; 0 compares exactly")
        return float(tol)
    part = theta[0] if isinstance(theta, tuple) else theta
    dtype = np.asarray(part).dtype
    return tolerance(dtype if jnp.issubdtype(dtype, jnp.floating) else np.float64, 1.0)


@arguments.closed_form(undefined=True)
def breakpoints(theta: Theta) -> np.ndarray:
    r"""$t_j = -b_j / w_j$, where neuron j has its kink; nan where $w_j = 0$. Shape [..., N]."""
    w, b, _, _ = split_parameters(theta)
    with np.errstate(over="ignore"):
        return np.divide(-b, w, out=np.full(w.shape, np.nan), where=w != 0)


@arguments.closed_form()
def neuron_types(theta: Theta, *, interval: Any = UNIT, tol: float | None = None) -> np.ndarray:
    r"""The `NeuronType` of every neuron, as integers of shape [..., N].

    With $z_\alpha, z_\beta$ the values of $w_j x + b_j$ at the ends, zero means $|z| \le tol \cdot \max(|z_\alpha|,
    |z_\beta|)$, and w = 0 means $|z_\beta - z_\alpha|$ below the same bound: both depend on the breakpoint alone, not
    on the length of $(w_j, b_j)$. Degenerate is $\max(|z_\alpha|, |z_\beta|) \le tol$, which does.

    Examples
    --------
    >>> w, b, v, c = [1.0, 1.0, 0.0, 1.0, -1.0, 0.0], [-2.0, -1.0, 1.0, 0.0, 0.5, 0.0], [1.0] * 6, 0.0
    >>> [NeuronType(kind).name for kind in neuron_types((w, b, v, c))]
    ['INACTIVE', 'SEMI_INACTIVE', 'SEMI_ACTIVE', 'TYPE_1', 'TYPE_2', 'DEGENERATE']
    """
    tol = default_tolerance(theta, tol)
    w, b, _, _ = split_parameters(theta)
    alpha, beta = check_interval(interval)
    left, right = w * alpha + b, w * beta + b
    scale = np.maximum(np.abs(left), np.abs(right))
    low, high = np.minimum(left, right), np.maximum(left, right)
    return np.select(
        [
            scale <= tol,
            high < -tol * scale,
            high <= tol * scale,
            np.abs(right - left) <= tol * scale,
            low >= -tol * scale,
        ],
        [
            NeuronType.DEGENERATE,
            NeuronType.INACTIVE,
            NeuronType.SEMI_INACTIVE,
            NeuronType.SEMI_ACTIVE,
            NeuronType.TYPE_1,
        ],
        NeuronType.TYPE_2,
    )


@arguments.closed_form()
def is_flat(theta: Theta, *, tol: float | None = None) -> np.ndarray:
    r"""Whether $|v_j| \le tol$, shape [..., N]: the neuron adds nothing, whatever its type."""
    return np.abs(split_parameters(theta).v) <= default_tolerance(theta, tol)


@arguments.closed_form(x=arguments.real, leak=arguments.single)
def realise(theta: Theta, x: Any, *, leak: Any = 0.0) -> np.ndarray:
    r"""$N_\theta(x)$ at the points x [P], shape [..., P].

    Examples
    --------
    >>> realise((1.0, -0.5, 2.0, 3.0), [0.0, 0.5, 1.0]).tolist()
    [3.0, 3.0, 4.0]
    """
    w, b, v, c = split_parameters(theta)
    z = w[..., None] * np.asarray(x, np.float64) + b[..., None]
    return c[..., None] + np.sum(v[..., None] * np.maximum(z, check_leak(leak) * z), axis=-2)


@arguments.closed_form(leak=arguments.single)
def leaky_reduction(theta: Theta, leak: Any) -> np.ndarray:
    r"""$P(w, b, v, c) = (w, -w, b, -b, v, -\zeta v, c)$: the leaky network as a ReLU network of 2N neurons ([C] 5).

    $L_\zeta = L \circ P$; shape [..., 6N + 1].

    Examples
    --------
    >>> leaky_reduction((1.0, 2.0, 4.0, 5.0), 0.25).tolist()
    [1.0, -1.0, 2.0, -2.0, 4.0, -1.0, 5.0]
    """
    w, b, v, c = split_parameters(theta)
    leak = check_leak(leak)
    return join_parameters(*(np.concatenate(pair, -1) for pair in ((w, -w), (b, -b), (v, -leak * v))), c)


@arguments.closed_form()
def invariants(theta: Theta) -> np.ndarray:
    r"""$w_j^2 + b_j^2 - v_j^2$, shape [..., N]: conserved by gradient flow, for any target and leak ([C] 4.3).

    Where one is positive at the start, the flow keeps that neuron from becoming degenerate.
    """
    w, b, v, _ = split_parameters(theta)
    return w**2 + b**2 - v**2


@arguments.closed_form(step_size=arguments.real)
def invariants_step(gradient: Theta, step_size: Any) -> np.ndarray:
    r"""The exact change of every invariant in a step of descent: $\eta^2 (G_{w_j}^2 + G_{b_j}^2 - G_{v_j}^2)$.

    `gradient` is laid out as theta. The terms of first order cancel because
    $w_j G_{w_j} + b_j G_{b_j} = v_j G_{v_j}$. Shape [..., N].
    """
    return step_size**2 * invariants(gradient)
