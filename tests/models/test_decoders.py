import flax.linen as nn
import jax
import numpy as np
import pytest

from diffmavil_jax.models.decoders import Decoder

GRID, TOKENS, PATCH, CLIPS = (4, 3), 12, 5, 2
VISIBLE = np.array([[0, 5, 7], [11, 2, 3]], np.int32)
MASKED = np.array([[1, 2, 3, 4, 6, 8, 9, 10, 11], [0, 1, 4, 5, 6, 7, 8, 9, 10]], np.int32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


LATENTS = normal(CLIPS, 4, 24, seed=1)
NOISY = normal(CLIPS, 9, PATCH, seed=2)
TIMESTEP = np.array([3, 40], np.int32)


def decoder(kind, conditioning='none', **settings):
    return Decoder(
        grid=GRID, target_dim=PATCH, width=16, depth=2, heads=2, kind=kind, conditioning=conditioning,
        timesteps=50, **settings,
    )  # fmt: skip


class Bound:
    """A decoder whose parameters are all nonzero; a call runs it, compiled once for each shape."""

    def __init__(self, module, noisy=NOISY):
        inputs = (LATENTS, VISIBLE, MASKED, noisy, TIMESTEP)
        shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
        rng = np.random.default_rng(4)
        self.params = jax.tree.map(
            lambda p: 0.3 * rng.normal(size=p.shape).astype(np.float32), nn.meta.unbox(shapes)
        )
        self._apply = jax.jit(module.apply)

    def __call__(self, latents=LATENTS, visible=VISIBLE, decoded=MASKED, noisy=NOISY, timestep=TIMESTEP):
        return np.asarray(self._apply({'params': self.params}, latents, visible, decoded, noisy, timestep))


@pytest.fixture(scope='module')
def bound():
    return {kind: Bound(decoder(kind)) for kind in ('self', 'cross', 'cross_self')}


@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_one_prediction_for_each_decoded_token(bound, kind):
    prediction = bound[kind]()
    assert prediction.shape == (CLIPS, 9, PATCH) and prediction.dtype == np.float32
    # Predictions are in the order of the tokens that were passed.
    order = np.array([4, 8, 0, 1, 7, 2, 3, 6, 5])
    np.testing.assert_allclose(
        bound[kind](decoded=MASKED[:, order], noisy=NOISY[:, order]), prediction[:, order], atol=1e-5
    )


@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_visible_tokens_are_a_set_with_positions(bound, kind):
    prediction, order = bound[kind](), [2, 0, 1]
    latents = np.concatenate([LATENTS[:, :1], LATENTS[:, 1:][:, order]], axis=1)
    np.testing.assert_allclose(bound[kind](latents, VISIBLE[:, order]), prediction, atol=1e-5)
    assert np.abs(bound[kind](visible=VISIBLE[:, order]) - prediction).max() > 1e-3
    assert (
        np.abs(
            bound[kind](latents=LATENTS + 1.0 * (np.arange(4) == 0)[:, None] * normal(24)) - prediction
        ).max()
        > 1e-3
    )


@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_partial_decoding_needs_cross_attention(bound, kind):
    full, few = bound[kind](), [6, 1, 3]
    partial = bound[kind](decoded=MASKED[:, few], noisy=NOISY[:, few])
    if kind == 'cross':
        np.testing.assert_allclose(partial, full[:, few], atol=1e-5)
    else:
        assert np.abs(partial - full[:, few]).max() > 1e-3


@pytest.mark.parametrize('kind', ['self', 'cross', 'cross_self'])
def test_which_tokens_see_a_noisy_patch(bound, kind):
    changed = NOISY.copy()
    changed[:, 2] += 1.0
    difference = np.abs(bound[kind](noisy=changed) - bound[kind]()).max(axis=-1)
    others = np.delete(difference, 2, axis=1)
    assert (difference[:, 2] > 1e-3).all()
    assert (others == 0).all() if kind == 'cross' else (others > 0).all()


def test_decoded_tokens_have_positions():
    masked = Bound(decoder('cross'), noisy=None)
    prediction = masked(noisy=None)
    assert np.abs(prediction[:, 0] - prediction[:, 1]).max() > 1e-3
    moved = masked(decoded=MASKED[:, [0, 0, 1]], noisy=None)
    np.testing.assert_allclose(moved, prediction[:, [0, 0, 1]], atol=1e-5)


def test_mask_token_or_noisy_patches():
    diffused, masked = Bound(decoder('cross')), Bound(decoder('cross'), noisy=None)
    assert 'noisy_patch_embedding' in diffused.params and 'mask_token' not in diffused.params
    assert 'mask_token' in masked.params and 'noisy_patch_embedding' not in masked.params
    before = masked(noisy=None)
    masked.params['mask_token'] = masked.params['mask_token'] + normal(16)
    assert np.abs(masked(noisy=None) - before).max() > 1e-3


@pytest.mark.parametrize('kind', ['self', 'cross'])
@pytest.mark.parametrize('conditioning', ['none', 'add', 'adaln'])
def test_the_time_step_matters_only_with_conditioning(kind, conditioning):
    conditioned = Bound(decoder(kind, conditioning))
    prediction = conditioned()
    later = conditioned(timestep=np.array([3, 41], np.int32))
    np.testing.assert_array_equal(later[0], prediction[0])  # one time step a clip
    changed = np.abs(later[1] - prediction[1]).max()
    assert changed == 0 if conditioning == 'none' else changed > 1e-3
