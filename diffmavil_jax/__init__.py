"""DiffMAViL and MAViL: self-supervised pretraining on sound and pictures."""

from __future__ import annotations

import os
import typing

if typing.TYPE_CHECKING:
    from diffmavil_jax.inference.embed import Model


def load(path: str | os.PathLike[str]) -> Model:
    """The network of a pretraining run, an import or an export: `load(DIR).embed(['dog.mp4'])`.

    Raises:
        ConfigError: there is none that can be loaded.
    """
    from diffmavil_jax.inference import (
        embed as embedding,  # JAX with it, which who only reads a config need not wait for
    )

    return embedding.load(path)
