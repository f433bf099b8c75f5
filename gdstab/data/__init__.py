"""Data sets for losses: images of digits, synthetic teachers, whitening; NumPy arrays, one row per sample.

scikit-learn's digits come with it; MNIST and Fashion-MNIST are read from local files, and nothing is downloaded.
"""

from gdstab.data.images import Dataset, digits, fashion_mnist, mnist, read_idx
from gdstab.data.subsets import normalised, pixel_statistics, split, subset
from gdstab.data.teachers import Regression, linear_teacher, relu_teacher
from gdstab.data.whitening import Whitening, whiten

__all__ = [
    "Dataset", "Regression", "Whitening", "digits", "fashion_mnist", "linear_teacher", "mnist", "normalised",
    "pixel_statistics", "read_idx", "relu_teacher", "split", "subset", "whiten",
]  # fmt: skip
__dir__ = __all__.copy  # nothing else is for users
