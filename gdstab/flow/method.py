"""How a flow is solved: by which solver, and to what tolerances or with what steps."""

from typing import NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gdstab._types import Scalar
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
            solver = diffrax.Tsit5() if step is None else diffrax.Midpoint()
        return cls(*checked, step is not None, solver, check_count(max_steps, "max_steps"))

    def finer(self, window: Scalar) -> "Method":
        """A tenth of the tolerances and at least two steps in a window; or half the constant step."""
        if self.constant:
            return self._replace(longest=jnp.asarray(self.longest, window.dtype) / 2)
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
            steps = jnp.ceil(window / self.longest * (1 - 1e-6))
            return jnp.where(window > 0, window / jnp.maximum(steps, 1), self.longest)
        first = FIRST_STEP * (norm + self.atol / self.rtol) / speed
        first = jnp.where(jnp.isfinite(first), first, window).astype(window.dtype)
        return jnp.minimum(first, self.longest)
