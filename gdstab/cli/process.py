"""What belongs to the whole process, set before any array is made: options, precision, the cache of compilations."""

import os
from collections.abc import Sequence
from pathlib import Path


def parse(options_type: type, arguments: Sequence[str], command: str):
    """The options of a study from the words of the command line; exits with code 2 if they make no sense."""
    import tyro  # noqa: PLC0415 (not before a study is asked for)

    return tyro.cli(options_type, args=list(arguments), prog=f"gdstab {command}")


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
