"""What the engine is measured against: the same jobs by `vmap(while_loop)`, by NumPy, and by hand-written Numba."""

import jax
import jax.numpy as jnp
import numba
import numpy as np
from jax import lax

UNDECIDED, CONVERGED, DIVERGED = 0, 1, 3


def product_numba(points, scale, target, step_size, loss_tol, grad_tol, escape_radius, max_steps):
    """Scale (target - xy)^2 by a `prange` kernel with early exit; outcomes and steps."""
    kind = points.dtype.type
    squared = kind(-1.0) if grad_tol is None else kind(grad_tol) ** 2
    outcome, steps = np.empty(len(points), np.int8), np.empty(len(points), np.int32)
    numbers = [kind(value) for value in (scale, target, step_size, loss_tol)]
    _product_kernel(points, *numbers, squared, kind(escape_radius) ** 2, max_steps, outcome, steps)
    return outcome, steps


@numba.njit(parallel=True, fastmath=True)
def _product_kernel(
    points, scale, target, step_size, loss_tol, grad_tol_squared, radius_squared, max_steps, outcome, steps
):
    two = scale + scale
    for i in numba.prange(points.shape[0]):
        x, y = points[i, 0], points[i, 1]
        t, verdict = 0, UNDECIDED
        while True:
            if not (x * x + y * y <= radius_squared):
                verdict = DIVERGED
                break
            residual = target - x * y
            gx, gy = -two * residual * y, -two * residual * x
            if scale * residual * residual <= loss_tol or gx * gx + gy * gy <= grad_tol_squared:
                verdict = CONVERGED
                break
            if t >= max_steps:
                break
            x -= step_size * gx
            y -= step_size * gy
            t += 1
        outcome[i], steps[i] = verdict, t


def product_numpy(points, scale, target, step_size, loss_tol, grad_tol, escape_radius, max_steps):
    """The same in NumPy: all lanes at once, those that are done taken out after every update."""
    outcome, steps = np.zeros(len(points), np.int8), np.full(len(points), max_steps, np.int32)
    lanes = np.arange(len(points))
    x, y = points[:, 0].copy(), points[:, 1].copy()
    kind = points.dtype.type
    for t in range(max_steps + 1):
        residual = kind(target) - x * y
        gx, gy = kind(-2 * scale) * residual * y, kind(-2 * scale) * residual * x
        converged = kind(scale) * residual * residual <= kind(loss_tol)
        if grad_tol is not None:
            converged |= gx * gx + gy * gy <= kind(grad_tol) ** 2
        outside = ~(x * x + y * y <= kind(escape_radius) ** 2)
        done = outside | converged
        if done.any():
            outcome[lanes[done]] = np.where(outside[done], DIVERGED, CONVERGED)
            steps[lanes[done]] = t
            keep = ~done
            lanes, x, y, gx, gy = lanes[keep], x[keep], y[keep], gx[keep], gy[keep]
        if not len(lanes):
            break
        if t < max_steps:
            x, y = x - kind(step_size) * gx, y - kind(step_size) * gy
    return outcome, steps


def make_vmap_while(loss, step_size, loss_tol, grad_tol, escape_radius, max_steps):
    """The common idiom: `jit(vmap(while_loop))`, every lane until the slowest is done; points -> outcomes, steps."""

    def orbit(theta):
        def tests(theta):
            norm = sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(theta))
            outside = ~(norm <= escape_radius**2)
            converged = loss(theta) <= loss_tol
            if grad_tol is not None:
                gradient = jax.grad(loss)(theta)
                converged |= sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(gradient)) <= grad_tol**2
            return outside, converged

        def goes_on(carry):
            theta, t = carry
            outside, converged = tests(theta)
            return ~outside & ~converged & (t < max_steps)

        def body(carry):
            theta, t = carry
            return jax.tree.map(lambda w, g: w - step_size * g, theta, jax.grad(loss)(theta)), t + 1

        theta, t = lax.while_loop(goes_on, body, (theta, jnp.int32(0)))
        outside, converged = tests(theta)
        return jnp.where(outside, DIVERGED, jnp.where(converged, CONVERGED, UNDECIDED)).astype(jnp.int8), t

    return jax.jit(jax.vmap(orbit))


def network_numba(weights, targets, step_size, loss_tol, escape_radius, max_steps):
    """Three square layers, (1/2) ||Y - W_3 W_2 W_1||^2, by a plain `prange` kernel; weights [lanes, 3, n, n]."""
    kind = weights.dtype.type
    outcome, steps = np.empty(len(weights), np.int8), np.empty(len(weights), np.int32)
    _network_kernel(
        weights, targets, kind(step_size), kind(loss_tol), kind(escape_radius) ** 2, max_steps, outcome, steps
    )
    return outcome, steps


@numba.njit(fastmath=True, inline="always")
def _multiply(a, b, c):
    n = a.shape[0]
    for i in range(n):
        for j in range(n):
            total = a[i, 0] * b[0, j]
            for k in range(1, n):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@numba.njit(fastmath=True, inline="always")
def _multiply_transposed(a, b, c):
    """Write a^T b into c."""
    n = a.shape[0]
    for i in range(n):
        for j in range(n):
            total = a[0, i] * b[0, j]
            for k in range(1, n):
                total += a[k, i] * b[k, j]
            c[i, j] = total


@numba.njit(fastmath=True, inline="always")
def _subtract_outer(w, a, b, step_size):
    """Subtract step_size a b^T from w."""
    n = a.shape[0]
    for i in range(n):
        for j in range(n):
            total = a[i, 0] * b[j, 0]
            for k in range(1, n):
                total += a[i, k] * b[j, k]
            w[i, j] -= step_size * total


@numba.njit(parallel=True, fastmath=True)
def _network_kernel(weights, targets, step_size, loss_tol, radius_squared, max_steps, outcome, steps):
    n = weights.shape[2]
    for lane in numba.prange(weights.shape[0]):
        w = weights[lane].copy()
        p2, residual = np.empty_like(w[0]), np.empty_like(w[0])
        back2, back1 = np.empty_like(w[0]), np.empty_like(w[0])
        t, verdict = 0, UNDECIDED
        while True:
            norm = 0.0
            for layer in range(3):
                for i in range(n):
                    for j in range(n):
                        norm += w[layer, i, j] * w[layer, i, j]
            if not (norm <= radius_squared):
                verdict = DIVERGED
                break
            _multiply(w[1], w[0], p2)
            _multiply(w[2], p2, residual)
            loss = 0.0
            for i in range(n):
                for j in range(n):
                    residual[i, j] -= targets[i, j]
                    loss += residual[i, j] * residual[i, j]
            if 0.5 * loss <= loss_tol:
                verdict = CONVERGED
                break
            if t >= max_steps:
                break
            _multiply_transposed(w[2], residual, back2)
            _multiply_transposed(w[1], back2, back1)
            _subtract_outer(w[2], residual, p2, step_size)
            _subtract_outer(w[1], back2, w[0], step_size)
            for i in range(n):
                for j in range(n):
                    w[0, i, j] -= step_size * back1[i, j]
            t += 1
        outcome[lane], steps[lane] = verdict, t
