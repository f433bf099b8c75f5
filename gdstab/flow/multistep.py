"""A linear multistep solver for flows with constant steps, which diffrax has none of that is stable near minima."""

from typing import Any, ClassVar

import diffrax
import jax

from gdstab._types import Scalar, Theta


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
