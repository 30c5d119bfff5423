"""Imports and exports against timm's VisionTransformer with random weights."""

import json

import einops
import numpy as np
import pytest
import safetensors.numpy

from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.exporting import export
from diffmavil_jax.interop.importing import Options, import_weights
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from tests.interop import reference

torch = pytest.importorskip('torch', reason='what timm is written in')
timm = pytest.importorskip('timm', reason='the reference')

TOLERANCE = 1e-4


def randomised(model):
    """Moves every parameter away from its initial value, which may be zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.1 if value.ndim == 1 or 'token' in name or 'pos' in name else value[0].numel() ** -0.5
            value.add_(scale * torch.randn(value.shape, generator=generator))
    return model.eval()


def vision_transformer(**arguments):
    size = {'embed_dim': reference.WIDTH, 'depth': reference.LAYERS, 'num_heads': reference.HEADS}
    return timm.models.vision_transformer.VisionTransformer(**size, num_classes=0, **arguments)


def features(model, x):
    with torch.no_grad():
        return model.forward_features(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()


def test_an_image_model_is_imported_as_it_is(run_encoder, tmp_path):
    model = randomised(vision_transformer(img_size=32, patch_size=8))
    torch.save({'model': model.state_dict()}, tmp_path / 'vit.pth')
    options = Options(modalities=('video',), frames=2, patch_frames=2)
    import_weights('mae', tmp_path / 'vit.pth', tmp_path / 'out', options, overwrite=False)
    frames = np.random.default_rng(0).normal(size=(2, 1, 32, 32, 3)).astype(np.float32)
    ours = run_encoder(tmp_path / 'out', 'video', patchify_video(frames.repeat(2, axis=1), 2, 8))
    np.testing.assert_allclose(ours, features(model, np.moveaxis(frames[:, 0], -1, 1)), atol=TOLERANCE)


def test_a_model_of_spectrograms_is_imported_as_it_is(run_encoder, tmp_path):
    model = randomised(vision_transformer(img_size=(64, 128), patch_size=16, in_chans=1))
    torch.save(model.state_dict(), tmp_path / 'vit.pth')
    import_weights('audiomae', tmp_path / 'vit.pth', tmp_path / 'out', Options(), overwrite=False)
    sound = np.random.default_rng(0).normal(size=(2, 64, 128)).astype(np.float32)
    ours = run_encoder(tmp_path / 'out', 'audio', patchify_audio(sound, 16))
    np.testing.assert_allclose(ours, features(model, sound[:, None]), atol=TOLERANCE)


@pytest.mark.parametrize(
    'settings',
    [{}, {'positions': 'stored', 'class_token': False}],
    ids=['sin-cos positions and a class token', 'stored positions and none'],
)
def test_both_encoders_are_exported_as_they_are(make_run, run_encoder, tmp_path, settings):
    run = make_run(model=settings)
    out = tmp_path / 'timm'
    card = export(run, out, 'timm', licence='CC0', overwrite=False)
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(2, 32, 32)).astype(np.float32)
    frames = rng.normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    pictures = einops.rearrange(frames, 'b (t p) y x c -> b (p c) (t y) x', p=2)  # as the card has it
    inputs = {
        'audio': (patchify_audio(sound, 16), sound[:, None]),
        'video': (patchify_video(frames, 2, 8), pictures),
    }
    for modality, (patches, theirs) in inputs.items():
        arguments = json.loads((out / f'{modality}.json').read_text())
        model = timm.models.vision_transformer.VisionTransformer(**arguments).eval()
        state = safetensors.numpy.load_file(out / f'{modality}.safetensors')
        model.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()}, strict=True)
        ours = run_encoder(run, modality, patches)
        np.testing.assert_allclose(features(model, theirs), ours, atol=TOLERANCE)
        with torch.no_grad():
            pooled = model(torch.from_numpy(theirs.copy())).numpy()
        class_tokens = int(settings.get('class_token', True))
        np.testing.assert_allclose(pooled, ours[:, class_tokens:].mean(axis=1), atol=TOLERANCE)
    assert card['timm'].keys() == {'audio', 'video'}
    assert card['parts'] == ['audio_pool_norm', 'encoder_audio', 'encoder_video', 'video_pool_norm']


def test_a_run_can_not_start_from_what_is_for_timm(make_run, tiny, tmp_path):
    from diffmavil_jax.saved.inherit import inherit

    export(make_run(), tmp_path / 'timm', 'timm', licence='', overwrite=False)
    with pytest.raises(ConfigError, match='must be the workdir of a run, or what `diffmavil import`'):
        inherit({'init': str(tmp_path / 'timm')}, set())
