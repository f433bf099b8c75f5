"""`python -m gdstab` and the command `gdstab`."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run` says how it ends: quietly, whatever is being imported

import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402

from gdstab.cli import last_words, main  # noqa: E402


def run() -> int:
    """The command line as a process of its own.

    Ctrl-C ends it at once, whatever computes: it may be killed. Like other tools it dies of SIGPIPE when nobody reads
    what it prints.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGINT, lambda *_: None)  # the thread ends the process; nothing is raised in the others
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_stop, args=(reader,), daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of directories may hold what the terminal cannot show
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        return 1


def _stop(reader: int) -> None:
    """Wait for the signal, which is told here at once: Python's handler would wait for compiled code to return."""
    while os.read(reader, 1)[0] != signal.SIGINT:
        pass
    os.write(2, f"\n{last_words(sys.argv[1:])}\n".encode())
    os._exit(130)


if __name__ == "__main__":
    sys.exit(run())
