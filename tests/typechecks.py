"""The types of arguments and results, checked from the first call on."""

import functools

from beartype import beartype


def lazily(fn):
    """`beartype`, which writes its checks when a function is first called: half of them never are in one process."""
    checked = None

    @functools.wraps(fn)
    def call(*args, **kwargs):
        nonlocal checked
        checked = checked or beartype(fn)
        return checked(*args, **kwargs)

    return call
