r"""The least Hessian eigenvalue of homogeneous networks: exact forms, bounds, points where it is very negative.

Layers are $W_1, \dots, W_n$, the activation is $\sigma(z) = \alpha \max(z, 0) - \bar\alpha \max(-z, 0)$ with `slopes`
$(\alpha, \bar\alpha)$: (1, 1) linear, (1, 0) ReLU. The loss is the mean over the samples, which are columns, of a
convex loss of the outputs.

Source: [D] Elkabetz and Cohen, *Continuous vs. discrete optimization of deep neural networks*, section 4, Appendix C.
"""

from gdstab.theory.hessian_bounds.bounds import (
    homogeneous_bound,
    homogeneous_bound_near_zero,
    linear_bound,
    linear_bound_near_zero,
    shared_bound,
    shared_bound_near_zero,
)
from gdstab.theory.hessian_bounds.constructions import (
    ConcavePoint,
    homogeneous_concave_point,
    linear_concave_point,
    shared_concave_point,
)
from gdstab.theory.hessian_bounds.forms import activation_gates, gated_form, linear_form, outputs, shared_form
from gdstab.theory.hessian_bounds.sharing import convolution_pattern, dense_pattern, operator_norm, realise

__all__ = [
    "ConcavePoint",
    "activation_gates",
    "convolution_pattern",
    "dense_pattern",
    "gated_form",
    "homogeneous_bound",
    "homogeneous_bound_near_zero",
    "homogeneous_concave_point",
    "linear_bound",
    "linear_bound_near_zero",
    "linear_concave_point",
    "linear_form",
    "operator_norm",
    "outputs",
    "realise",
    "shared_bound",
    "shared_bound_near_zero",
    "shared_concave_point",
    "shared_form",
]
