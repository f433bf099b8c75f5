"""What is minimised: callable pytrees, written for one point; any plain function of `theta` serves as well."""

from gdstab.losses.linear import LinearNetwork as LinearNetwork
from gdstab.losses.scalar import ScalarProduct as ScalarProduct
from gdstab.losses.scalar import VectorProduct as VectorProduct
from gdstab.losses.testbeds import (
    DoubleWell as DoubleWell,
)
from gdstab.losses.testbeds import (
    Himmelblau as Himmelblau,
)
from gdstab.losses.testbeds import (
    Quadratic as Quadratic,
)
from gdstab.losses.testbeds import (
    Rosenbrock as Rosenbrock,
)

__all__ = ["DoubleWell", "Himmelblau", "LinearNetwork", "Quadratic", "Rosenbrock", "ScalarProduct", "VectorProduct"]
