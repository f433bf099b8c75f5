"""Labelled images: scikit-learn's digits, and MNIST and Fashion-MNIST from local files in the IDX format."""

import dataclasses
import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gdstab._validate import check_dtype

FOLDER = "GDSTAB_DATA"
"""The environment variable that names the folder with the folders `mnist` and `fashion-mnist`."""
_CLASSES = 10
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}  # of IDX files
_GZIP = b"\x1f\x8b"
_WHITE = {"digits": 16, "mnist": 255}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with labels: what `NetworkRisk(model, data.inputs, data.labels)` takes.

    Raises
    ------
    ValueError
        If counts differ, or a label is outside 0 to `classes` - 1.
    """

    inputs: np.ndarray
    """Real numbers, [samples, height, width]."""
    labels: np.ndarray
    """Integers, [samples]."""
    classes: int = _CLASSES
    name: str = "data"

    def __post_init__(self):
        for name in ("inputs", "labels"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        if self.inputs.ndim == 0 or len(self.inputs) == 0 or self.labels.shape != (len(self.inputs),):
            raise ValueError(
                f"{self.name}: expected at least one image, and as many labels, got images of shape "
                f"{self.inputs.shape} and labels of shape {self.labels.shape}; do both files belong together?"
            )
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise ValueError(f"{self.name}: expected integer labels, got {self.labels.dtype}; convert them")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.classes:
            raise ValueError(
                f"{self.name}: expected labels from 0 to {self.classes - 1}, got labels from {low} to {high}; is "
                "it the file of the labels?"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def one_hot(self) -> np.ndarray:
        """The labels as targets of the square loss, [samples, classes]: 1 at the label, 0 elsewhere."""
        return np.eye(self.classes, dtype=self.inputs.dtype)[self.labels]

    def take(self, indices: np.ndarray) -> "Dataset":
        """Some of the samples."""
        return dataclasses.replace(self, inputs=self.inputs[indices], labels=self.labels[indices])


def digits(dtype: Any = None) -> Dataset:
    """The 1797 images, 8 x 8, of digits that come with scikit-learn, pixels from 0 to 1 (Alpaydin and Kaynak 1998).

    >>> data = digits()
    >>> data.inputs.shape, data.classes
    ((1797, 8, 8), 10)
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 (only needed here, and slow to import)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is not installed; `pip install scikit-learn`, or read MNIST from "
            "local files by data.mnist"
        ) from error
    found = load_digits()
    return _dataset(found.images, found.target, "digits", _WHITE["digits"], dtype)


def mnist(folder: str | os.PathLike | None = None, part: str = "train", dtype: Any = None) -> Dataset:
    """The MNIST images of digits, 28 x 28, pixels from 0 to 1, from local files (LeCun 1998).

    Parameters
    ----------
    folder
        With train-images-idx3-ubyte and train-labels-idx1-ubyte, and their t10k- counterparts, plain or with .gz; by
        default the folder `mnist` in the one that the environment variable GDSTAB_DATA names.
    part
        "train", 60000 images, or "test", 10000.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says where it belongs.
    ValueError
        If a file is damaged, is no IDX file, or does not fit the other one.
    """
    return _read_pair("mnist", folder, part, dtype)


def fashion_mnist(folder: str | os.PathLike | None = None, part: str = "train", dtype: Any = None) -> Dataset:
    """Images of clothing in ten classes, 28 x 28, in files named as MNIST's (Xiao, Rasul and Vollgraf 2017).

    Arguments and errors are those of `mnist`; the default folder is `fashion-mnist` in GDSTAB_DATA.
    """
    return _read_pair("fashion-mnist", folder, part, dtype)


def _read_pair(name, folder, part, dtype):
    prefixes = {"train": "train", "test": "t10k"}
    if part not in prefixes:
        raise ValueError(f"part: expected 'train' or 'test', got {part!r}; choose one")
    place = _folder(name, folder)
    paths = [_find(place, f"{prefixes[part]}-{kind}", name) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = (read_idx(path) for path in paths)
    for path, array, axes in ((paths[0], images, 3), (paths[1], labels, 1)):
        if array.ndim != axes or array.dtype != np.uint8:
            raise ValueError(
                f"{path}: expected unsigned bytes with {axes} axes, got {array.dtype} of shape {array.shape}; is it "
                "the file that its name says?"
            )
    return _dataset(images, labels, name, _WHITE["mnist"], dtype)


def _folder(name, folder):
    if folder is not None:
        return Path(folder)
    if not os.environ.get(FOLDER):
        raise FileNotFoundError(
            f"{name}: expected a folder with its files, got none, and nothing is downloaded; pass `folder`, or put the "
            f"files into a folder {name} and set {FOLDER} to the folder around it"
        )
    return Path(os.environ[FOLDER]) / name


def _find(place, stem, name):
    """The file, whose name may end in .gz, and may have a dot where the original has its second hyphen."""
    names = [stem, stem.replace("-idx", ".idx")]
    for path in (place / (each + ending) for each in names for ending in ("", ".gz")):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{name}: expected {stem} or {stem}.gz in {place}, which is {'a folder' if place.is_dir() else 'no folder'} "
        f"without it; put the four files of {name} there, or pass another `folder` (nothing is downloaded)"
    )


def _dataset(images, labels, name, white, dtype):
    return Dataset((images / white).astype(check_dtype(dtype)), labels.astype(np.int32), _CLASSES, name)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, plain or gzip (told by the content, not by the name).

    Four bytes 0, 0, type, number of axes; the length of each axis in four bytes, big-endian; then the entries.

    Raises
    ------
    ValueError
        If the file is no IDX file, is cut short, or holds more than its header says.
    FileNotFoundError
        If there is none.
    """
    path = Path(path)
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or content[3] == 0:
        raise ValueError(
            f"{path}: expected an IDX file, which begins with 0, 0, a type and a number of axes, got the bytes "
            f"{content[:4].hex(' ') or 'of an empty file'}; is it the file that its name says?"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path}: expected a header of {start} bytes, got a file of {len(content)}; fetch it again")
    shape = tuple(np.frombuffer(content, ">u4", content[3], 4).tolist())
    dtype = np.dtype(_TYPES[content[2]])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        verb = "is cut short" if len(content) < expected else "holds more than that"
        raise ValueError(
            f"{path}: expected {expected} bytes for an array of shape {shape}, got {len(content)}: the file {verb}; "
            "fetch it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _content(path):
    content = path.read_bytes()
    if content[:2] != _GZIP:
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file, got a damaged one ({error}); fetch it again") from error
