"""Which loss: one frozen dataclass for each family.

Where a class of `gdstab.losses` takes the fields as they are, `python` names it, and `parameters` says how many
numbers its theta holds: nothing else is needed of a loss on the command line.
"""

import dataclasses
from typing import ClassVar, Literal, TypeAlias

SCALE = 1.0
"""The factor in front of a product of scalars by default, for every command: (1 - xy)^2, as in Figure 1 of paper A."""


@dataclasses.dataclass(frozen=True)
class Scalar:
    """scale * (target - w_1 w_2 ... w_depth)^2, a product of scalars."""

    python: ClassVar[str] = "ScalarProduct"
    depth: int = 2
    """number of factors"""
    target: float = 1.0
    """what the product should be"""
    scale: float = SCALE
    """the factor in front; with 1, as in Figure 1 of paper A, two factors have the critical step 1 / (2 target)"""

    @property
    def parameters(self) -> int:
        """Their number."""
        return self.depth


@dataclasses.dataclass(frozen=True)
class Vector:
    """scale * (target - u.v)^2 for two vectors; parameters are u, then v."""

    python: ClassVar[str] = "VectorProduct"
    dim: int = 2
    """length of u and of v"""
    target: float = 1.0
    """what the inner product should be"""
    scale: float = 0.5
    """the factor in front"""

    @property
    def parameters(self) -> int:
        """Their number."""
        return 2 * self.dim


@dataclasses.dataclass(frozen=True)
class Regularised:
    """scale * (target - xy)^2 + (decay / 2) (x^2 + y^2): with decay > 0 the edges of its basins are fractal."""

    python: ClassVar[str] = "RegularisedProduct"
    parameters: ClassVar[int] = 2
    decay: float = 0.2
    """weight of the penalty; 0 gives the product alone, whose basin has a smooth edge"""
    target: float = 1.0
    """what the product should be"""
    scale: float = 0.5
    """the factor in front"""


@dataclasses.dataclass(frozen=True)
class Linear:
    """scale * ||Y - W_h ... W_1 X||^2 on whitened inputs, with targets Y from a random teacher matrix."""

    widths: tuple[int, ...] = (2, 2, 2)
    """input, hidden and output widths; one weight matrix less than widths"""
    seed: int = 0
    """of the teacher"""
    scale: float = 0.5
    """the factor in front"""


@dataclasses.dataclass(frozen=True)
class Factorisation:
    """scale * ||V U^T - M||^2 for a diagonal matrix M; parameters are V row by row, then U."""

    diagonal: tuple[float, ...] = (2.0, 1.0)
    """the diagonal of M"""
    rank: int = 1
    """number of columns of U and V"""
    symmetric: bool = False
    """V = U: the parameters are those of U alone"""
    scale: float = 0.5
    """the factor in front"""
    norm: Literal["l2", "l1"] = "l2"
    """squares of the entries, or their absolute values"""


@dataclasses.dataclass(frozen=True)
class Recovery:
    """scale * sum of (<A_i, V U^T> - y_i)^2: a random matrix from random linear measurements of it."""

    shape: tuple[int, int] = (2, 2)
    """rows and columns of the matrix"""
    rank: int = 1
    """number of columns of U and V; 0 for the matrix itself as the parameter"""
    num: int = 12
    """number of measurements"""
    symmetric: bool = False
    """V = U: the parameters are those of U alone"""
    seed: int = 0
    """of the measurements and of the matrix"""
    scale: float = 0.5
    """the factor in front"""
    norm: Literal["l2", "l1"] = "l2"
    """squares of the misfits, or their absolute values"""


@dataclasses.dataclass(frozen=True)
class Phase:
    """scale * mean of ((a_i.x)^2 - y_i)^2: phase retrieval of a random unit vector from random measurements."""

    dim: int = 2
    """length of the vector"""
    num: int = 0
    """number of measurements; 0 for infinitely many, the expected loss"""
    seed: int = 0
    """of the measurements and of the vector"""
    scale: float = 0.5
    """the factor in front"""
    norm: Literal["l2", "l1"] = "l2"
    """squares of the misfits, or their absolute values (these take --loss.num)"""


@dataclasses.dataclass(frozen=True)
class Quadnet:
    """scale * mean of (sum_j (w_j.x_i)^2 - y_i)^2: a quadratic network fitted to a random teacher of norm 1."""

    features: int = 2
    """length of the inputs"""
    neurons: int = 2
    """number of neurons, of the teacher too"""
    num: int = 0
    """number of inputs; 0 for infinitely many, the expected loss"""
    seed: int = 0
    """of the inputs and of the teacher"""
    scale: float = 0.5
    """the factor in front"""
    norm: Literal["l2", "l1"] = "l2"
    """squares of the misfits, or their absolute values (these take --loss.num)"""


@dataclasses.dataclass(frozen=True)
class Relu:
    """Exact L2 risk of a shallow ReLU network on an interval; parameters are w, then b, v, and c (paper C)."""

    python: ClassVar[str] = "ShallowReLU"
    neurons: int = 2
    """number of hidden neurons"""
    interval: tuple[float, float] = (0.0, 1.0)
    """where the network is fitted"""
    target: tuple[float, ...] = (0.0, 1.0)
    """coefficients of the polynomial that is fitted, lowest first"""
    leak: float = 0.0
    """slope of an inactive neuron, below 1; 0 is ReLU"""
    convention: Literal["zero", "left", "right"] = "zero"
    """gradient of a neuron with w = b = 0: none, or the partial derivatives from one side"""

    @property
    def parameters(self) -> int:
        """Their number."""
        return 3 * self.neurons + 1


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """(1/2) sum of curvature_i theta_i^2: descent converges exactly below 2 / max curvature."""

    curvatures: tuple[float, ...] = (1.0, 10.0)
    """the eigenvalues of the Hessian"""


@dataclasses.dataclass(frozen=True)
class Rosenbrock:
    """The banana valley in the plane, with its minimum at (1, 1)."""

    python: ClassVar[str] = "Rosenbrock"
    parameters: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Himmelblau:
    """Himmelblau's function in the plane: four minima, all at height 0."""

    python: ClassVar[str] = "Himmelblau"
    parameters: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Doublewell:
    """Two wells in the plane, at (-1, 0) and (1, 0), and a saddle at the origin between them."""

    python: ClassVar[str] = "DoubleWell"
    parameters: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Worstcase:
    """Two hills and a bowl, in 64 bits: descent leaves the flow exponentially fast (Appendix B of paper D)."""

    python: ClassVar[str] = "WorstCase"
    parameters: ClassVar[int] = 3
    curvature: float = 1.0
    """a: minus the least eigenvalue of the Hessian"""
    extent: float = 3.0
    """b: how far the hills reach, at least 3"""
    accuracy: float = 0.1
    """epsilon: the distance that counts as close, below 1"""


@dataclasses.dataclass(frozen=True)
class Network:
    """Training loss of a neural network on images of digits: fully connected, or the two of paper D's Figure 3."""

    model: Literal["fully-connected", "tutorial", "adapted"] = "fully-connected"
    """layers of one width; PyTorch's convolutional tutorial; or the same without biases, subsampling its images"""
    width: int = 10
    """of the hidden layers, for fully-connected"""
    depth: int = 3
    """number of layers, for fully-connected"""
    activation: Literal["linear", "relu", "leaky-relu", "tanh", "sigmoid"] = "relu"
    """behind all layers but the last, for fully-connected"""
    biases: bool = False
    """whether layers have biases, for fully-connected"""
    data: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """8 x 8 digits, which come with scikit-learn, or 28 x 28 images from local files"""
    folder: str = ""
    """with the files of mnist or fashion-mnist; by default the folder of that name in $GDSTAB_DATA"""
    samples: int = 200
    """number of images, of all classes alike"""
    seed: int = 0
    """of their choice"""
    criterion: Literal["cross-entropy", "mse"] = "cross-entropy"
    """the loss of one image"""


@dataclasses.dataclass(frozen=True)
class Custom:
    """Your own loss: a function in a Python file that maps a vector of parameters to a number."""

    path: str
    """FILE.py:FUNCTION; the function is written with jax.numpy, for one vector of parameters"""
    dim: int = 2
    """number of parameters"""
    floor: float = 0.0
    """its infimum: the loss has converged when it is within --loss-tol of this"""


Loss: TypeAlias = (
    Scalar | Vector | Regularised | Linear | Factorisation | Recovery | Phase | Quadnet | Relu
    | Quadratic | Rosenbrock | Himmelblau | Doublewell | Worstcase | Network | Custom
)  # fmt: skip
