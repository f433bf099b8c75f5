"""`python -m gdstab` and the command `gdstab`."""

import os
import signal
import sys
import threading

from gdstab.cli import main


def run() -> int:
    """The command line as a process of its own, which Ctrl-C ends at once, whatever computes: it may be killed."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_stop, args=(reader,), daemon=True).start()
    return main()


def _stop(reader: int) -> None:
    """Wait for the signal, which is told here at once: Python's handler would wait for compiled code to return."""
    while os.read(reader, 1)[0] != signal.SIGINT:
        pass
    os.write(2, f"\ngdstab {' '.join(sys.argv[1:2])}: stopped; run it again with --resume to go on\n".encode())
    os._exit(130)


if __name__ == "__main__":
    sys.exit(run())
