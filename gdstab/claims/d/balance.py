"""Paper D, section 5 and Appendix G: balanced weights, how they are drawn, and how near they are to any others."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from gdstab.claims.registry import Finding, Verdict, claim, judge, require
from gdstab.theory import factorisations
from gdstab.theory import flow_bounds as fb


@claim(
    "D.proc13",
    source="Procedure 13",
    expected=Verdict.HOLDS,
    statement="Roots of the singular values as layers are balanced, and their product is the matrix that was drawn.",
)
def procedure_13(key):
    """Gaussian matrices cut to the least width, over necks, filling networks and unequal widths."""
    num, rows = 500, {}
    for widths in ((3, 3, 1), (2, 5, 4, 3), (4, 2, 3, 4), (3, 2, 2, 2, 5), (3, 4)):
        key, one = jax.random.split(key)
        drawn = jax.random.normal(one, (num, widths[-1], widths[0]))
        left, sizes, right = np.linalg.svd(np.asarray(drawn), full_matrices=False)
        sizes[:, min(widths) :] = 0
        wanted = (left * sizes[:, None, :]) @ right
        layers = jax.jit(jax.vmap(lambda A, widths=widths: factorisations.balanced_factorisation(A, widths)))(wanted)
        product, scale = np.asarray(layers[0]), sizes[:, 0]
        for W in layers[1:]:
            product = np.asarray(W) @ product
        gap = np.linalg.norm(product - wanted, axis=(1, 2)) / scale
        uneven = np.asarray(jax.jit(jax.vmap(fb.unbalancedness))(layers)) / scale ** (2 / len(layers))
        norms = [np.linalg.norm(np.asarray(W), axis=(1, 2)) for W in layers]
        exact = np.sqrt((sizes ** (2 / len(layers))).sum(axis=1))
        rows[f"widths {widths}"] = {
            "distance of the product, relative": float(gap.max()),
            "unbalancedness, relative": float(uneven.max()),
            "norms of the layers against the singular values": float(np.abs(np.array(norms) / exact - 1).max()),
        }
    holds = max(max(row.values()) for row in rows.values()) < 1e-12
    return Finding(judge(holds), rows)


@claim(
    "D.lem31",
    source="Lemma 31",
    expected=Verdict.HOLDS,
    statement="Within n^1.5 sqrt(unbalancedness) of any weights there are balanced ones.",
)
def balanced_points_are_near(key):
    """Random weights; the point of the proof, and one that is nearer by alternating minimisation."""
    rows, holds, sharper = {}, True, True
    for widths in ((3, 3, 1), (3, 3, 3, 1), (2, 2, 2, 2, 1), (3, 3, 3, 3)):
        shapes = [(above, below) for below, above in pairwise(widths)]
        keys = jax.random.split(key, len(shapes))
        theta = tuple(jax.random.normal(k, (500, *s)) for k, s in zip(keys, shapes, strict=True))

        @jax.jit
        @jax.vmap
        def look(theta):
            nearby, nearest = fb.balanced_nearby(theta), fb.nearest_balanced(theta, 100)
            gap = jnp.maximum(fb.unbalancedness(nearby), fb.unbalancedness(nearest))
            return _distance(theta, nearby), _distance(theta, nearest), gap, fb.unbalancedness(theta)

        nearby, nearest, gap, size = map(np.asarray, look(theta))
        require(bool(gap.max() < 1e-10), "a point that should be balanced is not")
        n = len(shapes)
        holds, sharper = (
            holds and (nearby <= n**1.5 * np.sqrt(size)).all(),
            sharper and (nearest <= nearby + 1e-9).all(),
        )
        reach = n * (n - 1) / 2 if widths[-1] < widths[0] else n * n // 4
        require(bool((nearby <= np.sqrt(reach * size)).all()), "the sharper bound fails")
        rows[f"widths {widths}"] = {
            "bound as printed over distance, median": float(np.median(n**1.5 * np.sqrt(size) / nearby)),
            "sharper bound over distance, median": float(np.median(np.sqrt(reach * size) / nearby)),
            "distance over that of the nearest found, median": float(np.median(nearby / nearest)),
        }
    require(bool(sharper), "alternating minimisation went away from the weights")
    note = (
        "n (n - 1) / 2 suffices for n^3 under the root, and floor(n^2 / 4) where all widths are equal, keeping the "
        "middle layer; proved so for all widths that fall up to some layer and rise from there."
    )
    return Finding(judge(bool(holds)), rows, note)


def _distance(a, b):
    """Euclidean distance of two sets of layers."""
    return jnp.sqrt(sum(jnp.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)))
