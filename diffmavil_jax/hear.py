"""The interface of the HEAR benchmark (Turian et al. 2022): `heareval ... diffmavil_jax.hear --model RUN`.

HEAR hands over PyTorch's tensors and wants a `torch.nn.Module`; the network runs in JAX.
"""

from __future__ import annotations

import numpy as np
import torch

import diffmavil_jax
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.inference.sounds import SoundFeatures


class Network(torch.nn.Module):
    """A pretrained network as HEAR knows it; it has no parameters of PyTorch.

    Attributes:
        sample_rate: of the sounds that it takes, in Hz.
        scene_embedding_size: width of a sound's feature.
        timestamp_embedding_size: width of the feature at a time.
    """

    def __init__(self, sounds: SoundFeatures) -> None:
        super().__init__()
        self.sounds = sounds
        self.sample_rate = sounds.sample_rate
        self.scene_embedding_size = self.timestamp_embedding_size = sounds.width


def load_model(model_file_path: str = '') -> Network:
    """The network of a pretraining run, an import or an export.

    Raises:
        ConfigError: the directory has no network with an encoder of sound.
    """
    if not model_file_path:
        raise ConfigError('load_model: must be given the directory of a run, an import or an export.')
    return Network(SoundFeatures(diffmavil_jax.load(model_file_path)))


def get_scene_embeddings(audio: torch.Tensor, model: Network) -> torch.Tensor:
    """One feature [n, d] for each sound [n, samples], which lies between -1 and 1."""
    return torch.from_numpy(model.sounds.scenes(_numpy(audio))).to(audio.device)


def get_timestamp_embeddings(audio: torch.Tensor, model: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [n, t, d] of sounds [n, samples] at regular times, and the times [n, t] in milliseconds."""
    features, times = model.sounds.timestamps(_numpy(audio))
    milliseconds = torch.from_numpy(1e3 * times).to(audio.device, torch.float32)
    return torch.from_numpy(features).to(audio.device), milliseconds.expand(len(audio), -1)


def _numpy(audio: torch.Tensor) -> np.ndarray:
    return audio.detach().cpu().float().numpy()
