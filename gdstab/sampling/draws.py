r"""Random numbers by position: entry e of point i is one call of a block cipher, whatever else is asked for.

Point i is number r = i mod 4096 of the logical group g = i div 4096, whose key is
fold_in(fold_in(key, g >> 32), g & 0xffffffff). Entry e of its n entries has the word pair Threefry(group key, r n + e)
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): these are the draws of
`jax.random.uniform(group key, (4096, n))` bit for bit, and of `jax.random.normal` to rounding. Those functions can only
draw a group as a whole, which costs a block of 512 lanes sixteen times its share; here every entry is made alone. The
rounds are written out because `jax.random`'s own, rolled up in loops, are three to six times slower on small blocks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gdstab.sampling.sources import GROUP

Pair = tuple[Any, Any]
Entries = Float[Array, "entries points"]

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)


def check_key(key: Any) -> None:
    """A key must be one of JAX's own kind, Threefry: either `jax.random.key(seed)` or `jax.random.PRNGKey(seed)`."""
    raw = getattr(key, "dtype", None) == np.uint32 and np.shape(key) == (2,)
    typed = jax.dtypes.issubdtype(getattr(key, "dtype", np.float32), jax.dtypes.prng_key)
    if not raw and not (typed and np.shape(key) == () and str(jax.random.key_impl(key)) == "threefry2x32"):
        raise ValueError(
            f"expected one Threefry key, got {key!r}; make it by jax.random.key(seed, impl='threefry2x32')"
        )


def group_keys(key: Array, indices: Int[Array, " points"], group: Any = 0) -> Pair:
    """The two words of the group key of every point number `group * 4096 + indices`, [points] each."""
    group = jnp.asarray(group)
    group = group + (indices // GROUP).astype(group.dtype)
    wide = jnp.iinfo(group.dtype).bits > 32
    high = (group >> 32).astype(jnp.uint32) if wide else np.uint32(0)  # 32-bit numbers have no upper word
    words = key if key.dtype == jnp.uint32 else jax.random.key_data(key)
    return fold_in(fold_in((words[0], words[1]), high), group.astype(jnp.uint32))


def uniforms(keys: Pair, indices: Int[Array, " points"], entries: int, dtype: Any) -> Entries:
    """Uniform in [0, 1)."""
    rows = (indices % GROUP).astype(jnp.uint32) * np.uint32(entries)
    counters = rows[None, :] + jnp.arange(entries, dtype=jnp.uint32)[:, None]
    first, second = fold_in(tuple(jnp.broadcast_to(word[None, :], counters.shape) for word in keys), counters)
    if np.dtype(dtype) == np.float64:
        bits = (first.astype(jnp.uint64) << 32) | second.astype(jnp.uint64)
        one, bits = np.uint64(0x3FF0000000000000), bits >> 12
    else:  # narrower types are rounded at the end
        one, bits, dtype = np.uint32(0x3F800000), (first ^ second) >> 9, np.float32
    return lax.bitcast_convert_type(bits | one, dtype) - 1


def half_normals(keys: Pair, indices: Int[Array, " points"], entries: int, dtype: Any) -> Entries:
    """Normal of variance 1/2, by the inverse of the error function.

    The factor that is missing belongs into a constant of the caller: compilers move a factor that they see through
    other products, and round differently in each shape.
    """
    unit = uniforms(keys, indices, entries, dtype)
    low = np.nextafter(unit.dtype.type(-1), unit.dtype.type(0))
    return lax.erf_inv(jnp.maximum(2 * unit + low, low))


def total(terms: Array) -> Array:
    """The sum over the leading axis, term after term: compilers add up in whatever order suits a shape."""
    if len(terms) <= 16:
        return sum(terms[1:], terms[0])
    return lax.fori_loop(1, len(terms), lambda number, found: found + terms[number], terms[0])


def store(values: Array, zero: Array) -> Array:
    """The values, computed by themselves and not as part of what follows, where a compiler may round them otherwise.

    XLA takes a barrier out again, but not a loop whose length, 1 + `zero`, it does not know.
    """
    return lax.fori_loop(0, 1 + zero.astype(jnp.int32), lambda _, each: each + zero, values)


def fold_in(key: Pair, number: Any) -> Pair:
    """Threefry-2x32 with 20 rounds of the counter (0, number): the words of `jax.random.fold_in(key, number)`.

    >>> [int(word) for word in fold_in(tuple(jax.random.key_data(jax.random.key(7))), jnp.uint32(3))]
    [276534068, 1641862660]
    >>> jax.random.key_data(jax.random.fold_in(jax.random.key(7), 3)).tolist()
    [276534068, 1641862660]
    """
    schedule = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    left, right = jnp.uint32(0) + schedule[0], number + schedule[1]
    for turn in range(5):
        for bits in _ROTATIONS[turn % 2]:
            left = left + right
            right = ((right << np.uint32(bits)) | (right >> np.uint32(32 - bits))) ^ left
        left = left + schedule[(turn + 1) % 3]
        right = right + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return left, right
