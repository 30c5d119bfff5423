"""One-step estimates of x_0 against samples of many steps: python -m experiments.sampling --run=RUN.

Held-out clips of the run at its evaluation's mask ratio, the same masks and the same noise to begin with in
every row. Two numbers for each modality and band of frequencies (`evaluation.bands`): the error's energy over
the target's, which is 1 for the mean predictor; and for the high band the energy of what was made over the
target's, which tells blur (near 0) from detail (near 1) from noise (above).
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from diffmavil_jax.config.clips import MODALITIES
from diffmavil_jax.config.schema import Config
from diffmavil_jax.data.clip import ClipSource
from diffmavil_jax.data.sources import open_sources
from diffmavil_jax.evaluation.bands import BandEnergies, audio_band_energies, video_band_energies
from diffmavil_jax.evaluation.held_out import batches, spread
from diffmavil_jax.inference.reconstruct import visible_counts
from diffmavil_jax.models.patches import take_tokens
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.objectives.pretraining import PretrainingObjective
from diffmavil_jax.objectives.sampling import SAMPLERS, Steps, make_steps, sample_masked, step_limits
from diffmavil_jax.parallel.allocator import keep_freed_memory
from diffmavil_jax.parallel.compilation_cache import use_compilation_cache
from diffmavil_jax.saved.network import open_network

STEPS = (1, 2, 5, 10, 25, 50)
HIGH = 1  # of bands.BANDS


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--run', required=True, help='a pretraining run with diffusion')
    parser.add_argument('--clips', type=int, default=512)
    flags = parser.parse_args()
    keep_freed_memory()
    network = open_network(flags.run)
    config = network.config
    use_compilation_cache(config.parallel.compilation_cache)
    params, seen = network.params, network.samples_seen
    source = open_sources(config).held_out
    chosen = spread(len(source), flags.clips)
    print(f'{flags.run}: {seen:,} clips seen; {len(chosen)} held-out clips, ', end='')
    print(f'{100 * config.evaluation.mask_ratio:g} % hidden\n')
    print('| sampler | steps | sound, low / high | high energy | picture, low / high | high energy |')
    print('|---|---|---|---|---|---|')
    for sampler in SAMPLERS:
        least = max(step_limits(config)[0], 1 + (sampler == 'ancestral'))  # one step draws nothing
        for count in (steps for steps in STEPS if steps >= least):
            energies = measure(config, params, source, chosen, make_steps(config, count, sampler))
            cells = [f'{error} | {energy:.3f}' for error, energy in map(spell, energies)]
            print(f'| {sampler} | {count} | {" | ".join(cells)} |', flush=True)


def measure(
    config: Config, params: object, source: ClipSource, indices: list[int], steps: Steps
) -> list[tuple[BandEnergies, BandEnergies]]:
    """Error energies of the samples, and the energies of the samples, for sound and picture."""
    objective = PretrainingObjective(config)
    visible = visible_counts(config, None, '')
    video = config.video

    @jax.jit
    def reconstruct(params, batch):
        patches = to_patches(batch, config)
        views, samples = sample_masked(objective, params, patches, batch['position'], visible, steps)
        return {m: (take_tokens(patches[m], views[m].decoded), samples[m]) for m in MODALITIES}

    def energies(modality: str, target: np.ndarray, prediction: np.ndarray) -> BandEnergies:
        if modality == 'audio':
            return audio_band_energies(target, prediction, config.audio.patch)
        return video_band_energies(target, prediction, video.patch_frames, video.patch)

    sums: dict[str, tuple[BandEnergies, BandEnergies]] = {}
    for batch, clips in batches(source, indices, config.evaluation.batch_size, config.data.threads):
        for modality, arrays in jax.device_get(reconstruct(params, batch)).items():
            target, made = (x[: len(clips)] for x in arrays)
            new = energies(modality, target, made), energies(modality, made, made)
            old = sums.get(modality)
            sums[modality] = new if old is None else (old[0] + new[0], old[1] + new[1])
    return [sums[m] for m in MODALITIES]


def spell(energies: tuple[BandEnergies, BandEnergies]) -> tuple[str, float]:
    """Relative errors of both bands, and the high band's energy over the target's."""
    against_target, of_samples = energies
    error = against_target.relative_error()
    ratio = of_samples.target[HIGH] / against_target.target[HIGH]
    return f'{error["low"]:.3f} / {error["high"]:.3f}', float(ratio)


if __name__ == '__main__':
    main()
