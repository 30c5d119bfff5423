"""Draws clips of the generated world: python -m experiments.world_picture docs/images/world.png."""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.world import GeneratedWorld
from diffmavil_jax.models.frontend import log_mel

SPEC = ClipSpec(sample_rate=16_000, seconds=2.0, frames=8, frame_size=48)
CLIPS = 6


def draw(path: str) -> None:
    """Writes a PNG: one row a clip, its frames beside its log-mel spectrogram."""
    world = GeneratedWorld(SPEC, seed=0, length=1_000)
    figure = Figure(figsize=(11, 1.25 * CLIPS), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(CLIPS, 2, width_ratios=(8, 4), squeeze=False)
    for index, (frames_axis, sound_axis) in enumerate(axes):
        clip = world[index]
        frames_axis.imshow(np.concatenate(list(clip['frames']), axis=1), interpolation='nearest')
        frames_axis.set_title(world.label_names[clip['label']], loc='left', fontsize=9)
        frames_axis.set_axis_off()
        mel = log_mel(jnp.asarray(clip['waveform'][None]), sample_rate=SPEC.sample_rate, num_mel_bins=128)[0]
        sound_axis.imshow(
            np.asarray(mel).T, origin='lower', aspect='auto', cmap='magma', extent=(0, SPEC.seconds, 0, 128)
        )
        sound_axis.set_yticks([])
        sound_axis.tick_params(labelsize=8)
    axes[-1, 1].set_xlabel('seconds', fontsize=8)
    figure.savefig(path)


if __name__ == '__main__':
    draw(sys.argv[1])
