"""Pictures of a screen as arrays: pixels around a place, and which cell that is in."""

import jax
import jax.numpy as jnp

from stepjax.envs.screen_actions import COARSE_COLUMNS, COARSE_ROWS

__all__ = ["as_floats", "cell_of", "pixels_around"]


def as_floats(screenshot: jax.Array) -> jax.Array:
    """A picture of bytes as numbers in [-1, 1]."""
    return screenshot.astype(jnp.float32) / 127.5 - 1.0


def cell_of(place: jax.Array) -> jax.Array:
    """Coarse cell of a place given in shares of the screen; the nearest if outside."""
    column = jnp.clip(place[..., 0] * COARSE_COLUMNS, 0, COARSE_COLUMNS - 1)
    row = jnp.clip(place[..., 1] * COARSE_ROWS, 0, COARSE_ROWS - 1)
    return row.astype(jnp.int32) * COARSE_COLUMNS + column.astype(jnp.int32)


def pixels_around(screenshot: jax.Array, cell: jax.Array) -> jax.Array:
    """[S, pixels] of a coarse cell and half a cell on each side; black off screen."""
    tall = screenshot.shape[1] // COARSE_ROWS
    wide = screenshot.shape[2] // COARSE_COLUMNS
    margin = ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0))

    def crop(image: jax.Array, at: jax.Array) -> jax.Array:
        corner = (at // COARSE_COLUMNS * tall, at % COARSE_COLUMNS * wide, 0)
        shape = (2 * tall, 2 * wide, 3)
        return jax.lax.dynamic_slice(jnp.pad(image, margin), corner, shape)

    cropped = jax.vmap(crop)(screenshot, cell)
    return as_floats(cropped).reshape(len(cropped), -1)
