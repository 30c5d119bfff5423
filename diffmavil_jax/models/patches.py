"""Spectrograms and frames to rows of patch values, and back."""

from __future__ import annotations

import einops
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def patchify_audio(spectrogram: Float[Array, 'b t f'], patch: int) -> Float[Array, 'b n p']:
    """Square patches, time-major: token n covers time n // (f / patch); values are (time, mel)."""
    return einops.rearrange(spectrogram, 'b (t pt) (f pf) -> b (t f) (pt pf)', pt=patch, pf=patch)


def unpatchify_audio(
    patches: Float[Array, 'b n p'], grid: tuple[int, int], patch: int
) -> Float[Array, 'b t f']:
    """The inverse of `patchify_audio`."""
    return einops.rearrange(patches, 'b (t f) (pt pf) -> b (t pt) (f pf)', t=grid[0], pt=patch, pf=patch)


def patchify_video(frames: Float[Array, 'b t y x 3'], patch_frames: int, patch: int) -> Float[Array, 'b n p']:
    """Tubelets in (time, height, width) order; values are (frame, height, width, channel)."""
    pattern = 'b (t pt) (y py) (x px) c -> b (t y x) (pt py px c)'
    return einops.rearrange(frames, pattern, pt=patch_frames, py=patch, px=patch)


def unpatchify_video(
    patches: Float[Array, 'b n p'], grid: tuple[int, int, int], patch_frames: int, patch: int
) -> Float[Array, 'b t y x 3']:
    """The inverse of `patchify_video`."""
    pattern = 'b (t y x) (pt py px c) -> b (t pt) (y py) (x px) c'
    return einops.rearrange(
        patches, pattern, t=grid[0], y=grid[1], x=grid[2], pt=patch_frames, py=patch, px=patch
    )


def take_tokens(tokens: Float[Array, 'b n p'], ids: Int[Array, 'b k']) -> Float[Array, 'b k p']:
    """Picks tokens `ids` of each clip; indices out of range are undefined behaviour."""
    return jnp.take_along_axis(tokens, ids[..., None], axis=1, mode='promise_in_bounds')


def take_rows(table: Float[Array, 'n d'], ids: Int[Array, 'b k']) -> Float[Array, 'b k d']:
    """Picks rows `ids` of a table; indices out of range are undefined behaviour."""
    return table.at[ids].get(mode='promise_in_bounds')
