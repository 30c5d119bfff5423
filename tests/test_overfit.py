"""The positive control: with few clips and much to see, everything that can be learned is learned."""

import math

import jax
import numpy as np
import pytest

from diffmavil_jax.config import network as config_module
from diffmavil_jax.data.clip import ClipSpec
from diffmavil_jax.data.world import GeneratedWorld
from diffmavil_jax.objectives.inputs import to_patches
from diffmavil_jax.parallel.metrics import accumulate, finalize
from diffmavil_jax.plan.buckets import make_plan

pytestmark = pytest.mark.slow

CLIPS = 200
BATCH = 20
STEPS = 440


@pytest.fixture(scope='module')
def control(tiny, make_pretrainer):
    """(metrics of each tenth of the run, loss of the mean predictor for each modality)."""
    # Smaller than the smallest preset, and enough for 200 clips.
    sizes = {**config_module.VIT_SIZES, 'test': config_module.VitSize(64, 2, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_module, 'VIT_SIZES', sizes)
        yield train(tiny, make_pretrainer)


def train(tiny, make_pretrainer):
    config = tiny(
        audio={'num_frames': 96},  # the whole second: a window without an impact tells no clip from another
        model={'size': 'test', 'decoder_width': 192},  # a patch of sound has 256 numbers
        diffusion={
            'schedule': 'cosine',
            'rho': 1.0,
        },  # the default's half is all but noise
        masking={'curriculum': 'none', 'end_ratio': 0.25},
        batch={'size': BATCH, 'max_size': BATCH, 'multiple': 4, 'rule': 'fixed'},
        optimizer={'learning_rate': 2e-3, 'warmup_samples': 50 * BATCH, 'weight_decay': 0.0},
        train={'samples': STEPS * BATCH},
    )
    spec = ClipSpec(config.data.sample_rate, config.data.seconds, config.data.frames, config.data.frame_size)
    world = GeneratedWorld(spec, seed=0, length=CLIPS)
    clips = [world[i] for i in range(CLIPS)]
    plan = make_plan(config)
    program, batches_from = make_pretrainer(config, clips, jax.devices()[:1])
    step = program.lower(0).compile(compiler_options={'xla_backend_optimization_level': 3})
    state, batches = program.init(), batches_from(0)
    tenths = []
    for _ in range(10):
        window = {}
        for _ in range(plan.total_steps // 10):
            batch, _ = next(batches)
            state, metrics = step(state, batch)
            window = accumulate(window, metrics)
        tenths.append(finalize(window))
    patches = to_patches(
        {name: np.stack([clip[name] for clip in clips]) for name in ('waveform', 'frames')}, config
    )
    mean_predictor = {m: float(np.var(np.asarray(x), axis=0).mean()) for m, x in patches.items()}
    return tenths, mean_predictor


def test_contrastive_learning_finds_each_pair(control):
    tenths, _ = control
    assert tenths[0]['inter'] > 0.5 * math.log(BATCH)
    assert tenths[-1]['inter'] < 0.15 * math.log(BATCH)
    assert tenths[-1]['inter_accuracy'] > 0.85


@pytest.mark.parametrize('modality', ['audio', 'video'])
def test_reconstruction_is_far_below_the_mean_predictor(control, modality):
    tenths, mean_predictor = control
    assert tenths[0][modality] > mean_predictor[modality]
    assert tenths[-1][modality] < 0.55 * mean_predictor[modality]


def test_no_step_was_skipped(control):
    assert all(tenth['skipped'] == 0 for tenth in control[0])
