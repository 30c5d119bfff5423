"""How a saved network is opened: the same way for a run, an import and an export."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection
from typing import Any

from diffmavil_jax.config.schema import Config, from_dict
from diffmavil_jax.models.attention import for_this_machine
from diffmavil_jax.saved.inherit import read_card, read_config
from diffmavil_jax.saved.params import load_params, missing_parts


@dataclasses.dataclass(frozen=True)
class SavedNetwork:
    """The config and the parameters of a directory; parameters are read when they are first used.

    Attributes:
        path: the directory.
        config: the stored config, with `compute` as it suits this machine.
        stored: the config as it was written.
        attention_reason: why that attention was chosen.
        card: describes an import or an export; None for a run.
    """

    path: str
    config: Config
    stored: Config
    attention_reason: str
    card: dict[str, Any] | None

    @functools.cached_property
    def _loaded(self) -> tuple[dict[str, Any], int]:
        return load_params(self.path)

    @property
    def params(self) -> dict[str, Any]:
        """Nested parameters on the host; their exponential moving average (EMA) if the run kept one.

        Raises:
            ConfigError: they can't be read.
        """
        return self._loaded[0]

    @property
    def samples_seen(self) -> int:
        """The clips that the parameters were trained on."""
        return self._loaded[1]

    def lacking(self, parts: Collection[str]) -> tuple[str, ...]:
        """Those of the given parts, such as `encoder_audio`, that the network does not have."""
        missing = missing_parts(self.path)
        return tuple(part for part in parts if part in missing)


def open_network(path: str | os.PathLike[str]) -> SavedNetwork:
    """Opens the directory of a run, an import or an export for this machine.

    The parameters are not read here: a directory that has none fails when they are used.

    Raises:
        ConfigError: the directory has no config that can be read.
    """
    stored = from_dict(read_config(path))
    config, reason = for_this_machine(stored)
    return SavedNetwork(os.fspath(path), config, stored, reason, read_card(path))
