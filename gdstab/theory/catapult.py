r"""Just past the threshold: the catapult of two layers (arXiv:2003.02218), and the flip bifurcation of one dimension.

The catapult is exact for $f = u \cdot v / \sqrt n$, $L = f^2 / 2$, which is the inner product of two vectors with
target 0 and scale $1/(2n)$. The flip is that of $G(x) = x - \eta L'(x)$ at $\eta_0 = 2 / L''$, where its multiplier is
-1 (Chen and Bruna, arXiv:2206.04172).
"""

import enum

from gdstab import _arguments as arguments
from gdstab._validate import check_count, check_positive


class Phase(enum.Enum):
    """What descent does from a large width, by step size times curvature (Lewkowycz et al., section 2)."""

    LAZY = "lazy"  # below 2: the loss falls, the curvature hardly moves
    CATAPULT = "catapult"  # from 2 to 4: the loss grows first, until the curvature has dropped below 2 / step size
    DIVERGENT = "divergent"  # above 4


@arguments.closed_form(output=arguments.real, curvature=arguments.real, step_size=arguments.real)
def catapult_step(output, curvature, step_size, width: int):
    r"""One step of descent in the output $f$ and the curvature $\lambda = (|u|^2 + |v|^2) / n$ alone.

    $$f' = (1 - \eta\lambda + \eta^2 f^2 / n)\, f, \qquad
      \lambda' = \lambda + \frac{\eta f^2}{n} (\eta\lambda - 4).$$
    Both are exact at every width $n$ (Lewkowycz et al., arXiv:2003.02218, equations (3) and (4)). Arrays and floats.

    Examples
    --------
    >>> catapult_step(1.0, 3.0, 1.0, 4)
    (-1.75, 2.75)
    """
    kick = step_size * output * output / check_count(width, "width")
    return (1 - step_size * curvature + step_size * kick) * output, curvature + kick * (step_size * curvature - 4)


@arguments.closed_form()
def phase(curvature: float, step_size: float) -> Phase:
    r"""The phase by $\eta\lambda$ at the start: lazy below 2, catapult below 4, divergent from there on.

    Examples
    --------
    >>> phase(3.0, 1.0).value
    'catapult'
    """
    product = check_positive(curvature, "curvature") * check_positive(step_size, "step_size")
    return Phase.LAZY if product < 2 else Phase.CATAPULT if product < 4 else Phase.DIVERGENT


@arguments.closed_form(second=arguments.positive, third=arguments.real, fourth=arguments.real)
def flip_coefficient(second, third, fourth):
    r"""Cubic coefficient $c = (3 L'''^2 - L'' L'''') / (3 L''^2)$ of the flip of descent at a minimum on the line.

    Near $\eta_0$ descent is conjugate to $\xi \mapsto -(1 + (\eta - \eta_0) L'')\, \xi + c\, \xi^3$: for $c > 0$ the
    flip is supercritical, a stable orbit of period 2 is born above $\eta_0$ (Chen and Bruna, arXiv:2206.04172).

    Examples
    --------
    >>> flip_coefficient(2.0, 0.0, -6.0)
    1.0
    """
    return (3 * third * third - second * fourth) / (3 * second * second)


@arguments.closed_form(second=arguments.positive, third=arguments.real, fourth=arguments.real)
def flip_slope(second, third, fourth):
    r"""Square of the amplitude per unit of $\eta - \eta_0$: $3 L''^3 / (3 L'''^2 - L'' L'''')$.

    The orbit of period 2 is $x_0 \pm \sqrt{(\eta - \eta_0) \cdot \text{slope}}$ to first order; where the slope is
    negative it is unstable and lives below $\eta_0$.

    Examples
    --------
    >>> flip_slope(2.0, 0.0, -6.0)
    2.0
    """
    return second / flip_coefficient(second, third, fourth)
