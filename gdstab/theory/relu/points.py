r"""Points to begin from: every critical point against an affine target, family by family, and global minima.

The families are those of [C] Proposition 4.5; `critical_point` names a family neuron by neuron.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gdstab import _arguments as arguments
from gdstab._validate import check_count
from gdstab.theory.relu.neurons import UNIT, check_affine, check_interval, join_parameters

ROLES = ("inactive", "semi-inactive-", "semi-inactive0", "semi-inactive+", "semi-active", "degenerate")
r"""What a neuron without a breakpoint inside may be; the sign is that of $f' v_j w_j$, the last two are flat."""


@arguments.closed_form(key=arguments.random_key)
def critical_point(
    pattern: Sequence[int | str], *, interval: Any = UNIT, target: Any = UNIT, key: Any = None
) -> np.ndarray:
    r"""A critical point that is no global minimum, flat [3N + 1], one entry of `pattern` per neuron.

    An integer i puts the breakpoint at $\alpha + i (\beta - \alpha) / (n+1)$, where n, the largest of them, is even and
    every i = 1 .. n occurs; then $\mathrm{sign}(w_j) = (-1)^{i+1}$ and the $v_j w_j$ of one i sum to $2 f' / (n+1)$.
    A name is one of `ROLES`. $c = f((\alpha + \beta) / 2)$. The loss is `levels.level(n)`, n = 0 without integers.

    With integers the point is a saddle (b). Without: a local minimum if all are "inactive" or "semi-inactive-", a
    saddle (a) otherwise; and with a "degenerate" neuron a saddle outside the proposition.

    Without a `key` all free magnitudes are equal; with one they are drawn, and every point of the family is possible
    (the $v_j w_j$ that share a breakpoint then differ, also in sign).

    Raises
    ------
    ValueError
        If an entry is unknown, the integers are not 1 .. n with n even, or the target is constant or not affine.

    Examples
    --------
    >>> critical_point((1, 2)).reshape(-1).round(3).tolist()  # the only saddle of two neurons, up to rescaling
    [1.0, -1.0, -0.333, 0.667, 0.667, -0.667, 0.5]
    """
    (alpha, beta), (offset, slope) = check_interval(interval), check_affine(target)
    kinks = _check_pattern(pattern)
    draw = _Draws(key, len(pattern))
    w, b, v = draw.side * draw.size, np.zeros(len(pattern)), draw.side * draw.outer
    for j, role in enumerate(pattern):
        highest = max(w[j] * alpha, w[j] * beta)
        if isinstance(role, int):
            w[j] = (-1) ** (role + 1) * draw.size[j]
            b[j] = -w[j] * (alpha + role * (beta - alpha) / (kinks + 1))
            v[j] = slope * draw.share[j] / (kinks + 1) / w[j]
        elif role == "inactive":
            b[j] = -highest - draw.gap[j] * abs(w[j]) * (beta - alpha)
            v[j] *= draw.free[j]
        elif role.startswith("semi-inactive"):
            b[j] = -highest
            v[j] *= {"-": -1, "0": 0, "+": 1}[role[-1]] * np.sign(slope)
        else:
            w[j], v[j] = 0.0, 0.0
            b[j] = draw.size[j] if role == "semi-active" else 0.0
    for i in range(1, kinks + 1):
        members = [j for j, role in enumerate(pattern) if isinstance(role, int) and role == i]
        lacking = 2 * slope / (kinks + 1) - np.sum(v[members] * w[members])
        v[members] += lacking / len(members) / w[members]
    return join_parameters(w, b, v, offset + slope * (alpha + beta) / 2)


@arguments.closed_form(key=arguments.random_key)
def global_minimum(
    neurons: int, *, pairs: int = 0, interval: Any = UNIT, target: Any = UNIT, key: Any = None
) -> np.ndarray:
    r"""A network that is f itself on the interval, flat [3N + 1].

    `pairs` couples $(w, b, v)$, $(-w, -b, -v)$ of type-2 neurons, which add up to $v (w x + b)$; one type-1 neuron, if
    one is left; the rest inactive. The slopes add up to f', the constant c does the rest. Without a `key` the slopes
    are equal and the breakpoints in the middle.

    Examples
    --------
    >>> from gdstab.theory.relu.risk import risk
    >>> bool(risk(global_minimum(3, pairs=1)) < 1e-30)
    True
    """
    (alpha, beta), (offset, slope) = check_interval(interval), check_affine(target)
    neurons, pairs = check_count(neurons, "neurons"), check_count(pairs, "pairs", least=0)
    if 2 * pairs > neurons:
        raise ValueError(f"expected at most {neurons // 2} pairs among {neurons} neurons, got {pairs}; each takes two")
    theta = critical_point(["inactive"] * neurons, interval=interval, target=target, key=key)
    draw, (w, b, v) = _Draws(key, neurons), np.split(theta[:-1], 3)
    used = [2 * k for k in range(pairs)] + ([2 * pairs] if neurons > 2 * pairs else [])
    share = draw.share[used]
    share = share + (1 - share.sum()) / len(used)
    for j, part in zip(used, share, strict=True):
        v[j] = slope * part / w[j]
        if j == 2 * pairs:  # the neuron that stays without a partner: active on the whole interval
            b[j] = draw.gap[j] * abs(w[j]) * (beta - alpha) - min(w[j] * alpha, w[j] * beta)
        else:
            b[j] = -w[j] * (alpha + draw.inside[j] * (beta - alpha))
            w[j + 1], b[j + 1], v[j + 1] = -w[j], -b[j], -v[j]
    return join_parameters(w, b, v, offset - np.sum(v[used] * b[used]))


def _check_pattern(pattern):
    """The number n of distinct breakpoints inside, once the pattern is seen to be a possible one."""
    if len(pattern) == 0:
        raise ValueError("expected at least one neuron, got an empty pattern; give a role or breakpoint per neuron")
    for role in pattern:
        if isinstance(role, bool) or not (isinstance(role, int) or role in ROLES):
            raise ValueError(f"expected a breakpoint's index or one of {ROLES}, got {role!r}; see `critical_point`")
    places = {role for role in pattern if isinstance(role, int)}
    kinks = max(places, default=0)
    if places != set(range(1, kinks + 1)) or kinks % 2:
        raise ValueError(
            f"expected breakpoints 1 .. n, each at least once, with n even, got {sorted(places)}; critical points have "
            "no others"
        )
    return kinks


class _Draws:
    """The free numbers of a family, one of each kind per neuron; all alike without a key."""

    def __init__(self, key: Any, count: int):
        normal = np.zeros((7, count)) if key is None else np.asarray(jax.random.normal(key, (7, count)), np.float64)
        self.size, self.outer, self.gap = np.exp(normal[:3] / 2)
        self.side = np.where(normal[3] >= 0, 1.0, -1.0)
        self.share, self.free = normal[4], np.ones(count) if key is None else normal[5]
        self.inside = 0.5 + np.arctan(normal[6]) / np.pi
