"""Results on disk: a directory per run, its configuration first, its arrays and figures, and its summary last.

A directory holds `run.json` (the configuration, written before anything runs, and a list of all files with checksums,
so that these and no others are ever removed), `parts/` (what a long run has finished so far), `result.zarr`, the
figures, and `summary.json`, whose presence says that the run is complete. Every file appears under its name only when
it is whole.
"""

from gdstab._guard import cores as available_cores
from gdstab.records.directories import CHUNK, SCHEMA, Record, begin, check_room, latest, load
from gdstab.records.files import RunError, writing
from gdstab.records.origin import differing_keys, provenance
from gdstab.records.resumable import Resumable, resumable

__all__ = [
    "CHUNK",
    "SCHEMA",
    "Record",
    "Resumable",
    "RunError",
    "available_cores",
    "begin",
    "check_room",
    "differing_keys",
    "latest",
    "load",
    "provenance",
    "resumable",
    "writing",
]
__dir__ = __all__.copy  # nothing else is for users
