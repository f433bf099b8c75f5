"""Names for the leaves of a tree of parameters, under which a store keeps them apart and whole."""

import hashlib
from typing import Any

import jax

_ESCAPED = str.maketrans({"%": "%25", "/": "%2F", "\\": "%5C"})  # a slash makes a group, where a store loses the array
_LONGEST = 120  # bytes; a store keeps each array, and each of its axes, under a file name of at most 255


def named_leaves(tree: Any, prefix: str) -> list[tuple[str, str, Any]]:
    """Name, path and leaf of every leaf: no two names are the same, and `urllib.parse.unquote` gives the path back.

    What is too long for the name of a file ends in a checksum instead; the path is whole.

    Examples
    --------
    >>> tree = {"mlp/~/linear": {"w": 1.0}, "a.b": 2.0, "a": {"b": 3.0}, "": 4.0, ".": 5.0}
    >>> for name, path, _ in named_leaves(tree, "theta"):
    ...     print(name)
    theta['']
    theta['.']
    theta['a']['b']
    theta['a.b']
    theta['mlp%2F~%2Flinear']['w']
    """
    found: dict[str, tuple[str, Any]] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = prefix + jax.tree_util.keystr(keys)
        name = path.translate(_ESCAPED)
        if len(name.encode()) > _LONGEST:
            checksum = hashlib.sha256(path.encode()).hexdigest()[:16]
            name = f"{name.encode()[: _LONGEST - 17].decode(errors='ignore')}~{checksum}"
        while name in found:  # keys of a node of the user's own that look alike
            name = f"{name}~{len(found)}"
        found[name] = path, leaf
    return [(name, path, leaf) for name, (path, leaf) in found.items()]
