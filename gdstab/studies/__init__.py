"""One file per study: `run(options) -> result`; the options are in `gdstab.studies.options` and import no JAX.

What the command line, the claims and the notebooks share.
"""
