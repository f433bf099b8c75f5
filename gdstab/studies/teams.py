"""Several processes that work on one study: they fail together, and show each other what they have counted."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

T = TypeVar("T")
_ROOM_FOR_WORDS = 2048  # bytes of a message that one process may have for the others


class ElsewhereError(ValueError):
    """Another process could not go on; the message says which one, and why."""


class Team:
    """The processes of a run, this one being number `number` of `size`; alone if nothing else is said.

    Everything here is collective: every process calls the same methods in the same order. With more than one process
    `jax.distributed.initialize` comes first.

    Examples
    --------
    >>> team = Team()
    >>> team.together(lambda: 3), team.gather({"count": 1})
    (3, [{'count': 1}])
    """

    def __init__(self, number: int = 0, size: int = 1):
        self.number, self.size = number, size

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the result."""
        return self.number == 0

    def together(self, work: Callable[[], T]) -> T:
        """Call `work` in every process, and return what it returned here.

        What makes it fail in one process ends it in all of them, with a message that names the process: nobody waits
        for a result that will not come. `work` may itself call `gather`.

        Raises
        ------
        ElsewhereError
            If it failed in another process.
        """
        try:
            result = work()
        except ElsewhereError:
            raise
        except Exception as error:
            self._hear(f"process {self.number} stopped: {error or type(error).__name__}")
            raise
        self._hear("")
        return result

    def in_turn(self, work: Callable[[], T]) -> T:
        """As `together`, but the leading process first, and the others once it is done."""
        first = self.together(lambda: work() if self.leads else None)
        then = self.together(lambda: None if self.leads else work())
        return first if self.leads else then

    def gather(self, tree: T) -> list[T]:
        """What every process has for a tree of arrays and numbers, of the same shapes everywhere, in their order.

        The bytes are exchanged as they are, because without 64 bits JAX would cut integers and floats short.
        """
        self._hear("")
        if self.size == 1:
            return [tree]
        leaves, treedef = jax.tree.flatten(tree)
        arrays = [np.asarray(leaf) for leaf in leaves]
        found = []
        for row in self._exchange(b"".join(array.tobytes() for array in arrays)):
            parts, start = [], 0
            for leaf, array in zip(leaves, arrays, strict=True):
                part = row[start : start + array.nbytes].copy().view(array.dtype).reshape(array.shape)
                parts.append(part if isinstance(leaf, np.ndarray) else type(leaf)(part.item()))
                start += array.nbytes
            found.append(jax.tree.unflatten(treedef, parts))
        return found

    def told(self, word: bool) -> bool:
        """What the leading process says."""
        return self.gather(word)[0]

    def _hear(self, words: str) -> None:
        """Exchange news; bad news from another process ends this one too."""
        if self.size == 1:
            return
        data = words.encode()[:_ROOM_FOR_WORDS]
        rows = self._exchange(data.ljust(_ROOM_FOR_WORDS, b"\0"))
        heard = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
        others = [news for number, news in enumerate(heard) if news and number != self.number]
        if others and not words:
            raise ElsewhereError(others[0])

    def _exchange(self, data: bytes) -> np.ndarray:
        """The bytes of every process, [processes, bytes]; equally many from each."""
        from jax.experimental import multihost_utils  # noqa: PLC0415 (only where there are several processes)

        return np.asarray(multihost_utils.process_allgather(np.frombuffer(data, np.uint8))).reshape(self.size, -1)
