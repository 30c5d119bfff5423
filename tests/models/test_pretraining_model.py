import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmavil_jax.config.clips import AudioConfig, DataConfig, VideoConfig
from diffmavil_jax.config.compute import ComputeConfig
from diffmavil_jax.config.network import ModelConfig
from diffmavil_jax.config.schema import Config
from diffmavil_jax.models.encoders import Encoder
from diffmavil_jax.models.pretraining import PretrainingModel, View

CONFIG = Config(
    data=DataConfig(seconds=0.5, frames=4, frame_size=16),
    audio=AudioConfig(num_mel_bins=16, num_frames=24, patch=8),  # 3 x 2 tokens of 64 values
    video=VideoConfig(patch=8, patch_frames=2),  # 2 x 2 x 2 tokens of 384 values
    model=ModelConfig(size='demo', fusion_layers=1, decoder_width=16, decoder_layers=2, decoder_heads=2),
)
SIZES = {'audio': (6, 64), 'video': (8, 384)}


def with_model(**settings):
    return dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **settings))


def make_views(seed=0):
    """Two clips. In each modality two tokens are visible, three are decoded, and the others neither."""
    rng = np.random.default_rng(seed)
    views = {}
    for modality, (tokens, values) in SIZES.items():
        order = np.argsort(rng.uniform(size=(2, tokens)), axis=1).astype(np.int32)
        views[modality] = View(
            patches=rng.normal(size=(2, tokens, values)).astype(np.float32),
            visible=order[:, :2],
            decoded=order[:, 2:5],
            noisy=rng.normal(size=(2, 3, values)).astype(np.float32),
            timestep=np.array([1, 500], np.int32),
        )
    return views


class Bound:
    """The model with nonzero parameters; each method is compiled once."""

    def __init__(self, config):
        model = PretrainingModel(config)
        shapes = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), make_views())['params'])
        rng = np.random.default_rng(1)
        self.params = jax.tree.map(lambda p: 0.2 * rng.normal(size=p.shape).astype(np.float32), shapes)
        self.shapes = shapes
        jitted = jax.jit(model.apply, static_argnames='method')
        self._run = lambda method, *inputs: jitted({'params': self.params}, *inputs, method=method)

    def __call__(self, views):
        return self._run(None, views)

    def features(self, patches):
        return self._run('features', patches)


@pytest.fixture(scope='module')
def model():
    return Bound(CONFIG)


def changed_at(view, ids_of_clip):
    """The view with other values in the given patches of each clip."""
    patches = view.patches.copy()
    for clip, ids in enumerate(ids_of_clip):
        patches[clip, ids] += 1 + np.arange(patches.shape[2]) % 3
    return view.replace(patches=patches)


def test_outputs(model):
    outputs = model(make_views())
    assert {m: p.shape for m, p in outputs.predictions.items()} == {'audio': (2, 3, 64), 'video': (2, 3, 384)}
    assert {m: p.shape for m, p in outputs.pooled.items()} == {'audio': (2, 128), 'video': (2, 128)}


def test_nothing_depends_on_the_values_of_the_hidden_patches(model):
    views = make_views()
    hidden = {
        m: changed_at(view, [np.setdiff1d(np.arange(SIZES[m][0]), ids) for ids in view.visible])
        for m, view in views.items()
    }
    jax.tree.map(np.testing.assert_array_equal, model(hidden), model(views))


@pytest.mark.parametrize(('modality', 'other'), [('audio', 'video'), ('video', 'audio')])
def test_a_visible_patch_reaches_both_decoders_but_one_pooled_feature(model, modality, other):
    views = make_views()
    before = model(views)
    after = model({**views, modality: changed_at(views[modality], views[modality].visible[:, :1])})
    for m in (modality, other):
        assert np.abs(after.predictions[m] - before.predictions[m]).max() > 1e-4
    assert np.abs(after.pooled[modality] - before.pooled[modality]).max() > 1e-4
    np.testing.assert_array_equal(after.pooled[other], before.pooled[other])


def test_clips_do_not_see_each_other(model):
    views = make_views()
    swapped = jax.tree.map(lambda x: x[::-1], views)
    for one, other in zip(jax.tree.leaves(model(swapped)), jax.tree.leaves(model(views)), strict=True):
        np.testing.assert_allclose(one, other[::-1], atol=1e-5)


def test_a_second_view_is_pooled_as_if_it_were_the_first_and_changes_nothing_else(model):
    views = make_views()
    other = {m: view.replace(visible=view.visible[:, ::-1] // 2) for m, view in views.items()}
    both = model({m: view.replace(second=other[m].visible) for m, view in views.items()})
    first, second = model(views), model(other)
    assert not first.second_pooled
    for modality in views:
        np.testing.assert_allclose(both.pooled[modality], first.pooled[modality], atol=1e-5)
        np.testing.assert_allclose(both.second_pooled[modality], second.pooled[modality], atol=1e-5)
        np.testing.assert_allclose(both.predictions[modality], first.predictions[modality], atol=1e-5)
        assert np.abs(both.pooled[modality] - both.second_pooled[modality]).max() > 1e-3


def test_features_of_whole_clips_are_those_of_a_view_that_hides_nothing(model):
    views = make_views()
    patches = {m: view.patches for m, view in views.items()}
    features = model.features(patches)
    assert {m: f.shape for m, f in features.items()} == {
        'audio': (2, 128),
        'video': (2, 128),
        'fused': (2, 256),
    }
    assert all(f.dtype == jnp.float32 for f in features.values())
    rng = np.random.default_rng(0)
    everything = {
        m: view.replace(visible=np.stack([rng.permutation(SIZES[m][0]) for _ in range(2)]).astype(np.int32))
        for m, view in views.items()
    }
    for modality, embedded in model(everything).pooled.items():
        np.testing.assert_allclose(embedded, features[modality], atol=1e-5)


def test_fused_features_hold_both_modalities(model):
    patches = {m: view.patches for m, view in make_views().items()}
    before = model.features(patches)
    after = model.features({**patches, 'video': patches['video'] + np.arange(384, dtype=np.float32) % 3})
    np.testing.assert_array_equal(after['audio'], before['audio'])
    assert np.abs(after['fused'][:, :128] - before['fused'][:, :128]).max() > 1e-4  # audio attends to video


def test_decoder_kinds_are_chosen_for_each_modality():
    def attentions(config):
        shapes = Bound(config).shapes
        return {m: {n for n in shapes[f'decoder_{m}']['layers']['block'] if 'attention' in n} for m in SIZES}

    kinds = {
        'self': {'self_attention'},
        'cross': {'cross_attention'},
        'cross_self': {'self_attention', 'cross_attention'},
    }
    for audio, video in [('self', 'cross'), ('cross', 'self'), ('cross_self', 'cross')]:
        found = attentions(with_model(audio_decoder=audio, video_decoder=video))
        assert found == {'audio': kinds[audio], 'video': kinds[video]}


def test_bfloat16_computes_in_it_and_returns_float32(model):
    half = Bound(dataclasses.replace(CONFIG, compute=ComputeConfig(dtype='bfloat16')))
    views = make_views()
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(half.shapes))
    for ours, exact in zip(jax.tree.leaves(half(views)), jax.tree.leaves(model(views)), strict=True):
        assert ours.dtype == jnp.float32
        distance = np.linalg.norm(ours - exact) / np.linalg.norm(exact)
        assert 1e-4 < distance < 0.1  # bfloat16 has 8 bits of mantissa


@pytest.fixture(scope='module')
def without_class_token():
    return Bound(with_model(class_token=False, positions='stored'))


def test_without_class_tokens_features_are_the_mean_over_all_tokens(without_class_token):
    model, views = without_class_token, make_views()
    assert 'class_token' not in model.shapes['encoder_audio']
    patches = {m: view.patches for m, view in views.items()}
    features, all_seen = model.features(patches), {}
    for modality, (tokens, _) in SIZES.items():
        everything = np.tile(np.arange(tokens, dtype=np.int32), (2, 1))
        all_seen[modality] = views[modality].replace(visible=everything)
    outputs = model(all_seen)
    for modality, pooled in outputs.pooled.items():
        np.testing.assert_allclose(pooled, features[modality], atol=1e-5)
        assert outputs.predictions[modality].shape == (2, 3, SIZES[modality][1])
    encoded = PretrainingModel(with_model(class_token=False, positions='stored')).apply(
        {'params': model.params}, patches['audio'], method=lambda model, x: model.encoder['audio'](x)
    )
    assert encoded.shape == (2, 6, 128)


def test_stored_positions_go_with_their_tokens(without_class_token):
    model, patches = without_class_token, {m: view.patches for m, view in make_views().items()}
    before, encoder = model.features(patches), model.params['encoder_audio']
    order = np.array([3, 0, 5, 1, 2, 4])
    swapped = model.params | {'encoder_audio': encoder | {'positions': encoder['positions'][order]}}
    apply = PretrainingModel(with_model(class_token=False, positions='stored')).apply
    after = apply({'params': swapped}, patches | {'audio': patches['audio'][:, order]}, method='features')
    # The mean over tokens does not depend on their order, but on which patch is where.
    np.testing.assert_allclose(after['audio'], before['audio'], atol=1e-4)
    other = apply({'params': swapped}, patches, method='features')
    assert np.abs(other['audio'] - before['audio']).max() > 1e-2


def test_stored_positions_begin_as_sincos_and_get_no_gradient():
    sizes = {'grid': (3, 2), 'width': 32, 'depth': 1, 'heads': 2}
    fixed, stored = Encoder(**sizes), Encoder(**sizes, stores_positions=True)
    patches = np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32)
    params = nn.meta.unbox(stored.init(jax.random.key(0), patches)['params'])
    token_ids = np.array([[4, 1], [0, 5]])
    seen = np.take_along_axis(patches, token_ids[..., None], axis=1)

    def loss(params):
        tokens = stored.apply({'params': params}, seen, token_ids)
        return jnp.square(tokens).sum(), tokens

    gradient, tokens = jax.grad(loss, has_aux=True)(params)
    others = {name: value for name, value in params.items() if name != 'positions'}
    expected = fixed.apply({'params': others}, seen, token_ids)
    np.testing.assert_allclose(tokens, expected, atol=1e-6)
    assert not gradient['positions'].any() and gradient['patch_embedding']['kernel'].any()
