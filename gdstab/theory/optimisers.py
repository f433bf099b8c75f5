r"""Thresholds and multipliers of optimisers at a minimum, in closed form: one curvature at a time, in NumPy.

Linearised at a minimum, each rule acts on every eigenvector of the Hessian by itself, as a map on one parameter and
at most one momentum. Adaptive rules at a frozen second moment $\nu$ do so on the eigenvectors of the preconditioned
Hessian $P^{-1/2} \nabla^2 L P^{-1/2}$, $P = \operatorname{diag}(\sqrt\nu + \epsilon)$: give its eigenvalues for
`curvature` then (Cohen et al. 2022, arXiv:2207.14484). The rules are those of `updates.named`.
"""

import numpy as np
from jaxtyping import Complex, Float

from gdstab import _arguments as arguments

MOMENTUM = ("heavy-ball", "nesterov", "adam", "adamw")
"""Rules with a momentum: two multipliers to a curvature."""
ADAPTIVE = ("rmsprop", "adam", "adamw", "adagrad")
"""Rules with a second moment, whose curvature is that of the preconditioned Hessian."""
KNOWN = ("descent", *MOMENTUM, "rmsprop", "adagrad")
"""Rules with a closed form; the others (sign descent, Lion, normalised descent) have no derivative at a minimum."""


@arguments.closed_form(undefined=True, curvature=arguments.real, beta=arguments.single, weight_decay=arguments.single)
def threshold(rule: str, curvature, *, beta: float = 0.9, weight_decay: float = 0.0) -> Float[np.ndarray, "..."]:
    r"""The largest linearly stable step size at a minimum whose largest curvature is $\lambda$.

    | rule | threshold |
    |---|---|
    | descent, rmsprop, adagrad | $2 / \lambda$ |
    | heavy-ball | $2 (1 + \beta) / \lambda$ (Polyak 1964) |
    | nesterov | $2 (1 + \beta) / ((1 + 2\beta) \lambda)$ |
    | adam | $2 (1 + \beta) / ((1 - \beta) \lambda)$ |
    | adamw | $2 (1 + \beta) / ((1 - \beta) \lambda + (1 + \beta) w)$ |

    At every one of them a multiplier is -1. Weight decay $w$ that is added to the gradient shifts $\lambda$ to
    $\lambda + w$ for descent, heavy-ball and nesterov. It is no shift of a preconditioned Hessian: for rmsprop, adagrad
    and adam give the eigenvalues of $P^{-1/2} (\nabla^2 L + w I) P^{-1/2}$ instead. The decay of adamw is its own.

    Parameters
    ----------
    curvature
        $\lambda$, an array of any shape. At zero the threshold is infinite; where $\lambda$ (with its shift) is
        negative no step is stable, and it is NaN.

    Raises
    ------
    ValueError
        If no closed form is known for the rule, `beta` is outside [0, 1), or `weight_decay` is negative or not taken.

    Examples
    --------
    >>> [round(float(threshold(rule, 2.0, beta=0.5)), 6) for rule in ("descent", "heavy-ball", "nesterov", "adam")]
    [1.0, 1.5, 0.75, 3.0]
    """
    lam = np.asarray(curvature, float)
    _check(rule, beta, weight_decay)
    if rule == "adamw":
        top, slope = 2 * (1 + beta), (1 - beta) * lam + (1 + beta) * weight_decay
    else:
        gain = {"heavy-ball": 1 + beta, "nesterov": (1 + beta) / (1 + 2 * beta), "adam": (1 + beta) / (1 - beta)}
        top, slope = 2 * gain.get(rule, 1.0), lam + weight_decay
    with np.errstate(divide="ignore"):
        found = np.where(slope > 0, top / np.abs(slope), np.inf)
    return np.where(slope < 0, np.nan, found)


@arguments.closed_form(step_size=arguments.positive, beta=arguments.single, weight_decay=arguments.single)
def critical_curvature(
    rule: str, step_size, *, beta: float = 0.9, weight_decay: float = 0.0
) -> Float[np.ndarray, "..."]:
    r"""The curvature above which a minimum is unstable at a step size: the inverse function of `threshold`.

    $2/\eta$ for descent, $(2 + 2\beta)/\eta$ for heavy ball, $(2 + 2\beta) / ((1 - \beta)\eta)$ for Adam, where
    full-batch training is found to hover (Cohen et al. 2021, arXiv:2103.00065, and 2022, arXiv:2207.14484).

    >>> round(float(critical_curvature("adam", 0.01)), 6)
    3800.0
    """
    eta = np.asarray(step_size, float)
    one = threshold(rule, 1.0, beta=beta)  # without decay, thresholds are inversely proportional to the curvature
    shift = weight_decay * (1 + beta) / (1 - beta) if rule == "adamw" else weight_decay
    _check(rule, beta, weight_decay)
    return np.asarray(one / eta - shift)


@arguments.closed_form(nu=arguments.points, eps=arguments.nonnegative)
def preconditioner(rule: str, nu, eps: float) -> Float[np.ndarray, "..."]:
    r"""The diagonal of $P$ at a second moment $\nu$: $\sqrt\nu + \epsilon$, or $\sqrt{\nu + \epsilon}$ for Adagrad.

    Ones for rules without a second moment.

    >>> preconditioner("adam", [4.0, 9.0], 0.5).tolist()
    [2.5, 3.5]
    """
    _check(rule, 0.0, 0.0)
    nu = np.asarray(nu)
    small = nu.dtype.type(eps)
    if rule not in ADAPTIVE:
        return np.ones_like(nu)
    return np.asarray(np.sqrt(nu + small) if rule == "adagrad" else np.sqrt(nu) + small)


@arguments.closed_form(
    step_size=arguments.positive, curvature=arguments.real, beta=arguments.single, weight_decay=arguments.single
)
def multipliers(
    rule: str, step_size, curvature, *, beta: float = 0.9, weight_decay: float = 0.0
) -> Complex[np.ndarray, "... modes"]:
    r"""The multipliers that belong to one curvature $\lambda$: one, or two where the rule has a momentum.

    With $x = \eta (\lambda + w)$: $1 - x$ for descent (and rmsprop, adagrad), and the roots of
    $\mu^2 - T\mu + D$ with

    | rule | $T$ | $D$ |
    |---|---|---|
    | heavy-ball | $1 + \beta - x$ | $\beta$ |
    | nesterov | $(1 + \beta)(1 - x)$ | $\beta (1 - x)$ |
    | adam | $1 + \beta - (1 - \beta) x$ | $\beta$ |
    | adamw | $1 + \beta - (1 - \beta)\eta\lambda - \eta w$ | $\beta (1 - \eta w)$ |

    Parameters
    ----------
    step_size, curvature
        $\eta$ and $\lambda$, broadcast against each other; the last axis of the answer is new.

    Raises
    ------
    ValueError
        As `threshold`.

    Examples
    --------
    >>> multipliers("nesterov", 0.75, 2.0, beta=0.5).round(6).real.tolist()  # at its threshold
    [0.25, -1.0]
    """
    _check(rule, beta, weight_decay)
    eta, lam = np.broadcast_arrays(np.asarray(step_size, float), np.asarray(curvature, float))
    x = eta * (lam + weight_decay)
    if rule not in MOMENTUM:
        return (1 - x)[..., None].astype(complex)
    trace, determinant = {
        "heavy-ball": (1 + beta - x, np.full_like(x, beta)),
        "nesterov": ((1 + beta) * (1 - x), beta * (1 - x)),
        "adam": (1 + beta - (1 - beta) * x, np.full_like(x, beta)),
        "adamw": (1 + beta - (1 - beta) * eta * lam - eta * weight_decay, beta * (1 - eta * weight_decay)),
    }[rule]
    root = np.sqrt((trace**2 - 4 * determinant).astype(complex))
    return np.stack([(trace + root) / 2, (trace - root) / 2], axis=-1)


def _check(rule: str, beta: float, weight_decay: float) -> None:
    if rule not in KNOWN:
        raise ValueError(
            f"expected one of {', '.join(KNOWN)}, got {rule!r}; other rules have no closed form: those that jump at a "
            "minimum (sign, lion, normalised) have no multipliers there, for the rest use `stability.threshold_of`"
        )
    if not 0 <= beta < 1:
        raise ValueError(f"beta: expected a decay from 0 up to 1, 1 excluded, got {beta}; 0.9 is usual")
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay: expected a finite number of at least 0, got {weight_decay}; pass 0 for none")
    if weight_decay and rule in ADAPTIVE and rule != "adamw":
        raise ValueError(
            f"weight_decay: expected 0 for {rule}, whose preconditioned Hessian it does not merely shift, got "
            f"{weight_decay}; put it into the Hessian before that is preconditioned"
        )
