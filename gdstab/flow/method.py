"""How a flow is solved: by which solver, to what tolerances or with what steps.

Of linear multistep solvers for constant steps diffrax has none that is stable near minima: here is one.
"""

from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gdstab._types import Scalar, Theta
from gdstab._validate import check_count, check_positive

FIRST_STEP = 0.01
r"""An adaptive solver's first step moves by about this share of $\|\theta\|$ (Hairer et al., section II.4)."""


class Method(NamedTuple):
    """See `gradient_flow`. Tolerances, radius and steps are arrays: others compile nothing anew."""

    rtol: ArrayLike
    atol: ArrayLike
    escape_radius: ArrayLike
    longest: ArrayLike
    constant: bool  # whether every step is the longest, whatever the tolerances
    solver: diffrax.AbstractSolver
    max_steps: int

    @classmethod
    def of(cls, dtype, rtol, atol, escape_radius, step, solver, max_steps) -> "Method":
        """Refuse tolerances, steps and radii that are not positive."""
        numbers = {"rtol": rtol, "atol": atol, "escape_radius": escape_radius, "step": step}
        positive = {name: check_positive(value, name) for name, value in numbers.items() if value is not None}
        checked = (np.asarray(positive.get(name, np.inf), dtype) for name in numbers)
        if solver is None:
            solver = diffrax.Tsit5() if step is None else AdamsBashforth2()
        return cls(*checked, step is not None, solver, check_count(max_steps, "max_steps"))

    def paired(self, window: Scalar, *, second: bool) -> "Method":
        """Either this method or a second one: the distance of their flows tells the error.

        The second has a tenth of the tolerances and at least two steps in a window. Of constant steps it takes every
        two as one: the error of steps twice as long is seen in half the time, that of half as long in twice.
        """
        if self.constant:
            step = _even(window / 2, self.longest)
            return self._replace(longest=2 * step if second else step)
        if not second:
            return self
        rtol, atol = (jnp.asarray(0.1, window.dtype) * tol for tol in (self.rtol, self.atol))
        longest = jnp.where(window > 0, jnp.minimum(self.longest, window / 2), self.longest)
        return self._replace(rtol=rtol, atol=atol, longest=longest)

    def controller(self, window: Scalar) -> diffrax.AbstractStepSizeController:
        """What chooses the steps of a solve that takes a time `window`."""
        if self.constant:
            return diffrax.ConstantStepSize()
        shortest = jnp.finfo(window.dtype).eps / 16 * window  # about what time resolves; no NaN detains the flow
        return diffrax.PIDController(self.rtol, self.atol, dtmin=shortest, dtmax=self.longest, force_dtmin=False)

    def first_step(self, window: Scalar, norm: Scalar, speed: Scalar) -> Scalar:
        r"""Constant steps that fill the window evenly; else by $\|\theta\|$ and its speed."""
        if self.constant:
            return _even(window, self.longest)
        first = FIRST_STEP * (norm + self.atol / self.rtol) / speed
        first = jnp.where(jnp.isfinite(first), first, window).astype(window.dtype)
        return jnp.minimum(first, self.longest)


def _even(window, longest):
    """The longest of equal steps that fill a window, at most `longest` but for rounding; that where it is empty."""
    number = jnp.ceil(window / longest * (1 - 1e-6))
    return jnp.where(window > 0, window / jnp.maximum(number, 1), longest)


class AdamsBashforth2(diffrax.AbstractSolver):
    r"""$\theta_{n+1} = \theta_n + h \left[(1 + \tfrac{r}{2}) f_n - \tfrac{r}{2} f_{n-1}\right]$, r the ratio of steps.

    The solver of second order by Adams and Bashforth (Hairer, Nørsett, Wanner, *Solving Ordinary Differential Equations
    I*, III.1): one gradient for each step, where Runge and Kutta's take two, and stable for $h \lambda_{\max} < 1$.
    Where the field jumps in the share s of a step, it errs by $(s - \tfrac12) h$ times the jump: nothing in the mean,
    and as much as the midpoint rule does with steps of that length, at half the cost. It begins as if an Euler step
    backwards had led to the start. It has no estimate of its error: for constant steps.

    Examples
    --------
    >>> from gdstab.flow import gradient_flow
    >>> bowl = lambda x: 0.5 * (x**2).sum()
    >>> flow = gradient_flow(bowl, jax.numpy.ones(1), 1.0, step=0.001, solver=AdamsBashforth2())
    >>> bool(abs(flow.theta[0] - jax.numpy.exp(-1.0)) < 1e-6)
    True
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation

    def order(self, terms: diffrax.AbstractTerm) -> int:
        """Of its error after a fixed time."""
        del terms
        return 2

    def func(self, terms: diffrax.AbstractTerm, t0: Scalar, y0: Theta, args: Any) -> Theta:
        """The field."""
        return terms.vf(t0, y0, args)

    def init(self, terms: diffrax.AbstractTerm, t0: Scalar, t1: Scalar, y0: Theta, args: Any) -> tuple[Scalar, Theta]:
        """The step before the first, and the field at its beginning."""
        h = t1 - t0
        back = jax.tree.map(lambda y, f: y - h * f, y0, terms.vf(t0, y0, args))
        return h, terms.vf(t0 - h, back, args)

    def step(self, terms: diffrax.AbstractTerm, t0: Scalar, t1: Scalar, y0: Theta, args: Any, solver_state, made_jump):
        """The next point, no estimate of its error, the parabola that leads there, and the state for the next step."""
        del made_jump
        h, (before, slope_before) = t1 - t0, solver_state
        slope = terms.vf(t0, y0, args)
        turn = jax.tree.map(lambda new, old: h / before * (new - old), slope, slope_before)
        y1 = jax.tree.map(lambda y, f, df: y + h * (f + df / 2), y0, slope, turn)
        ends = (jax.tree.map(lambda f: h * f, slope), jax.tree.map(lambda f, df: h * (f + df), slope, turn))
        dense = {"y0": y0, "y1": y1, "k0": ends[0], "k1": ends[1]}
        return y1, None, dense, (h, slope), diffrax.RESULTS.successful
