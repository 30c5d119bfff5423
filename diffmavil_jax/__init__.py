"""DiffMAViL and MAViL: self-supervised pretraining on sound and pictures."""

from __future__ import annotations

import os
import typing

if typing.TYPE_CHECKING:
    from diffmavil_jax.inference.embed import Model


def load(path: str | os.PathLike[str]) -> Model:
    """Loads the network of a pretraining run, an import or an export: `load(DIR).embed(['dog.mp4'])`.

    `load('demo')` is the small network in this package; `saved/demo/card.json` says what it can't do.

    Raises:
        ConfigError: the directory has no network that can be loaded.
    """
    # Here, because it imports JAX, which takes seconds; whoever only reads a config does not need it.
    from diffmavil_jax.inference import embed

    return embed.load(path)
