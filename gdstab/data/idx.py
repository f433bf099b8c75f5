"""Files in the IDX format, in which MNIST and Fashion-MNIST are published."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


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
