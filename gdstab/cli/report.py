"""What a person sees while a command runs: a bar."""

import itertools
import os
import sys
import threading
import time
from collections.abc import Mapping

from tqdm import tqdm

from gdstab.studies.phases import Phase

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
_TICK = 0.25  # seconds between two looks at the clock


class Progress:
    """A bar over all phases of a study, with the name of the one that runs; one last line where there is no terminal.

    The bar moves with the lanes of a phase, where it counts some, and its clock goes on where it does not.
    """

    def __init__(self, phases: Mapping[str, Phase], file=None):
        self.file = sys.stderr if file is None else file
        self.phases, self.passed, self.inside = dict(phases), [], 0
        self.lanes, self.lane_steps, self.begin = 0, 0, time.perf_counter()
        self.lock, self.over = threading.Lock(), threading.Event()
        self.whole = sum(phase.weight for phase in self.phases.values()) or 1.0
        self.bar = tqdm(total=1.0, bar_format=_BAR, disable=None, leave=False, file=self.file, **_room(self.file))
        if not self.bar.disable:
            threading.Thread(target=self._tick, daemon=True).start()

    def __call__(self, lanes: int, lane_steps: int) -> None:
        """Add what has happened since the last call."""
        with self.lock:
            self.lanes += lanes
            self.inside += lanes
            self.lane_steps += lane_steps
            self._show()

    def phase(self, name: str) -> None:
        """Go on to another phase, behind which all that come before it are."""
        with self.lock:
            before = list(itertools.takewhile(lambda known: known != name, self.phases))
            self.passed, self.inside = before if name in self.phases else self.passed, 0
            number = f" ({len(before) + 1} of {len(self.phases)})" if name in self.phases else ""
            self.bar.set_description_str(f"{name}{number}", refresh=False)
            self._show(refresh=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        with self.lock:
            self.bar.close()
        seconds = time.perf_counter() - self.begin
        if self.lane_steps:
            print(f"{self.lanes:,} lanes, {self.lane_steps:.4g} lane-steps; {seconds:.1f} s in all", file=self.file)

    def share(self) -> float:
        """How much of the whole is done, from 0 to 1."""
        done = sum(self.phases[name].weight for name in self.passed)
        rest = [name for name in self.phases if name not in self.passed]
        if rest and self.phases[rest[0]].lanes:
            now = self.phases[rest[0]]
            done += now.weight * min(self.inside / now.lanes, 1.0)
        return done / self.whole

    def _show(self, refresh: bool = False) -> None:
        self.bar.n = max(self.share(), self.bar.n)
        if self.lane_steps:
            rate = self.lane_steps / (time.perf_counter() - self.begin)
            self.bar.set_postfix_str(f"{self.lanes:,} lanes, {rate:.3g} lane-steps/s", refresh=False)
        if refresh:
            self.bar.refresh()

    def _tick(self) -> None:
        while not self.over.wait(_TICK):
            with self.lock:
                if not self.over.is_set():
                    self.bar.refresh()


def _room(file) -> dict:
    """The size of the terminal, asked anew as it changes; of one that does not know it, what terminals usually have."""
    try:
        known = min(os.get_terminal_size(file.fileno())) > 0
    except (OSError, ValueError, AttributeError):  # no terminal: there is no bar
        known = True
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
