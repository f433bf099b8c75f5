"""How a flow is solved: by which solver, and to what tolerances or with what steps."""

from typing import NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gdstab._types import Scalar
from gdstab._validate import check_count, check_positive
from gdstab.flow.multistep import AdamsBashforth2

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
