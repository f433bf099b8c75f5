"""Whether what a study keeps at once fits into memory, before it begins: what, how much, by which option."""

import os
from pathlib import Path

from gdstab.records.files import in_words

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_memory(**needs: int) -> None:
    """Refuse arrays that this machine cannot hold.

    Parameters
    ----------
    needs
        By the field of an option: the bytes of the arrays that it makes large, at the least.

    Raises
    ------
    ValueError
        If all of them together are more than there is: the option that asks for most is named.

    Examples
    --------
    >>> check_memory(resolution=1000)
    >>> check_memory(resolution=10**18, starts=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: --resolution asks for arrays of 1e+06 TB, but this machine has ... of memory: lower it
    """
    room = available()
    if sum(needs.values()) > room:
        name = max(needs, key=needs.__getitem__)
        raise ValueError(
            f"--{name.replace('_', '-')} asks for arrays of {in_words(needs[name])}, but this machine has "
            f"{in_words(room)} of memory: lower it"
        )


def available() -> int:
    """Bytes of memory of this machine, or what its container may use of them."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _LIMITS:
        words = path.read_text().strip() if path.is_file() else ""
        if words.isdigit():
            found.append(int(words))
    return min(found)
