"""What belongs to the whole process, set before any array is made: options, precision, the cache of compilations."""

import os
from collections.abc import Sequence
from pathlib import Path

from gdstab.cli import refusals, words
from gdstab.studies.options import check


def parse(options_type: type, arguments: Sequence[str], command: str):
    """The options of a study from the words of the command line.

    Help is printed by tyro, which ends the process with code 0.

    Raises
    ------
    ValueError
        In one line, if the words make no sense, or an option by itself nothing could be done with.
    """
    if {"-h", "--help"} & set(arguments):
        import tyro  # noqa: PLC0415 (not before it is asked for)

        return tyro.cli(options_type, args=_asked_about(options_type, arguments), prog=f"gdstab {command}")
    options = words.understand(options_type, arguments)
    check(options)
    refusals.begin(options)
    return options


def _asked_about(options_type: type, arguments: Sequence[str]) -> list[str]:
    """Help on the loss that is named, else on the study."""
    losses = words.losses_of(options_type)
    named = [word for word in arguments if word in losses and len(losses) > 1]
    return [*named[:1], "--help"]


def configure(precision: int) -> None:
    """Set the width of numbers, full precision of matrix products, and the cache of compiled programs on disk."""
    import jax  # noqa: PLC0415 (not before it is configured)

    jax.config.update("jax_enable_x64", precision == 64)
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    # JAX by default skips what compiles in less than a second, which here is nearly everything.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_directory() -> Path:
    """Where compiled programs are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gdstab" / "jax"
