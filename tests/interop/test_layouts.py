"""Each layout against a forward pass of its project, and files that lack parameters."""

import itertools
import re

import numpy as np
import pytest

from diffmavil_jax.config.schema import from_dict
from diffmavil_jax.config.tree import ConfigError
from diffmavil_jax.interop.convert import seconds_of
from diffmavil_jax.interop.importing import Options, import_weights
from diffmavil_jax.models.patches import patchify_audio, patchify_video
from diffmavil_jax.models.positions import sincos_table
from diffmavil_jax.models.pretraining import PretrainingModel
from diffmavil_jax.saved.inherit import read_config
from diffmavil_jax.saved.params import load_params
from tests.interop import reference

TOLERANCE = 1e-4  # four layers in float32 against float64
MEL = 128


def imported(path, layout, tmp_path, **options):
    directory = tmp_path / 'import'
    card = import_weights(layout, path, directory, Options(**options), overwrite=True)
    return directory, card


def spectrogram(frames):
    return np.random.default_rng(1).normal(size=(2, frames, MEL)).astype(np.float32)


def pictures(frames, side):
    return np.random.default_rng(2).normal(size=(2, frames, side, side, 3)).astype(np.float32)


def channels_first(frames):
    return np.moveaxis(frames, -1, 1)


def vit_tokens(state, tokens, layers='blocks', class_token='cls_token', positions='pos_embed'):
    """A forward pass as in MAE, AudioMAE and MAViL: the class token has the first position."""
    positions = state[positions]
    first = np.broadcast_to(state[class_token] + positions[:, :1], (len(tokens), 1, reference.WIDTH))
    x = np.concatenate([first, tokens + positions[:, 1:]], axis=1)
    for i in range(reference.LAYERS):
        x = reference.block(state, f'{layers}.{i}', x)
    return x


class TestMae:
    """Pictures of 24 x 24 in patches of 8."""

    STATE = reference.vit(channels=3, patch=8, count=9)

    def test_a_picture_is_a_clip_of_one_tubelet_that_stands_still(self, save, run_encoder, tmp_path):
        directory, card = imported(
            save(self.STATE), 'mae', tmp_path, modalities=('video',), frames=2, patch_frames=2
        )
        picture = pictures(1, 24)
        ours = run_encoder(directory, 'video', patchify_video(picture.repeat(2, axis=1), 2, 8))
        embedded = reference.embedded(self.STATE, 'patch_embed.proj', channels_first(picture[:, 0]))
        theirs = reference.normed(self.STATE, 'norm', vit_tokens(self.STATE, embedded))
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
        assert card['parts'] == ['encoder_video', 'video_pool_norm']
        assert read_config(directory)['data']['frame_size'] == 24

    def test_later_tubelets_are_told_from_the_first(self, save, tmp_path):
        directory, card = imported(save(self.STATE), 'mae', tmp_path, modalities=('video',), frames=6)
        table = load_params(directory)[0]['encoder_video']['positions'].reshape(3, 9, -1)
        stored = self.STATE['pos_embed'][0, 1:]
        np.testing.assert_allclose(table[0], stored, atol=1e-6)
        for step in (1, 2):
            angles = step * 10_000.0 ** (-np.arange(64) / 64)
            offset = np.concatenate([np.sin(angles), np.cos(angles) - 1])
            np.testing.assert_allclose(table[step] - stored, np.tile(offset, (9, 1)), atol=1e-5)
        assert (
            'The positions of video are those of a picture, with sin-cos offsets in time.' in card['remarks']
        )

    def test_a_spectrogram_is_embedded_as_a_grey_picture(self, save, tmp_path):
        directory, card = imported(save(self.STATE), 'mae', tmp_path, front_end='cavmae')
        embedding = load_params(directory)[0]['encoder_audio']['patch_embedding']
        sound = spectrogram(16)
        ours = patchify_audio(sound, 8) @ embedding['kernel'] + embedding['bias']
        grey = np.stack([sound] * 3, axis=1)
        np.testing.assert_allclose(
            ours, reference.embedded(self.STATE, 'patch_embed.proj', grey), atol=TOLERANCE
        )
        assert read_config(directory)['audio']['front_end'] == 'cavmae'
        assert {'encoder_audio', 'encoder_video'} <= set(card['parts'])

    def test_the_positions_of_sound_are_a_pictures_interpolated(self, save, tmp_path):
        torch = pytest.importorskip('torch', reason='its bicubic interpolation is the reference')
        # Smooth, because PyTorch's bicubic kernel is another (a = -0.75). There are 128 x 16 patches of 8.
        smooth = sincos_table((3, 3), reference.WIDTH, 0.1)
        state = self.STATE | {'pos_embed': np.concatenate([np.zeros_like(smooth[:1]), smooth])[None]}
        directory, _ = imported(save(state), 'mae', tmp_path, modalities=('audio',))
        table = load_params(directory)[0]['encoder_audio']['positions']
        picture = torch.tensor(smooth.T.reshape(1, -1, 3, 3).copy())
        theirs = torch.nn.functional.interpolate(picture, size=(128, 16), mode='bicubic', align_corners=False)
        np.testing.assert_allclose(table, theirs[0].flatten(1).T.numpy(), atol=0.05)
        assert read_config(directory)['audio']['num_frames'] == 1024

    def test_what_is_not_used_is_listed(self, save, tmp_path):
        _, card = imported(save(self.STATE), 'mae', tmp_path)
        source = card['source']
        assert source['keys_left_out'] == ['decoder_blocks.0.norm1.weight', 'mask_token']
        assert sorted(source['keys_used'] + source['keys_left_out']) == sorted(self.STATE)

    def test_a_fine_tuned_file_has_no_norm_before_the_mean(self, save, tmp_path):
        state = {key.replace('norm.', 'fc_norm.') if key.startswith('norm.') else key: value
                 for key, value in self.STATE.items()}  # fmt: skip
        directory, card = imported(save(state), 'mae', tmp_path, modalities=('video',))
        norm = load_params(directory)[0]['video_pool_norm']
        assert (norm['scale'] == 1).all() and (norm['bias'] == 0).all()
        assert 'fc_norm.weight' in card['source']['keys_left_out']
        assert 'video_pool_norm only normalises: the file has no norm before the mean.' in card['remarks']
        assert any(
            'fc_norm of the file, which belongs after the mean' in remark for remark in card['remarks']
        )

    @pytest.mark.parametrize('key', ['blocks.2.mlp.fc1.bias', 'pos_embed', 'patch_embed.proj.weight'])
    def test_what_is_needed_and_missing_is_named(self, save, tmp_path, key):
        state = {name: value for name, value in self.STATE.items() if name != key}
        with pytest.raises(ConfigError, match=f'has no {key}; it has'):
            imported(save(state), 'mae', tmp_path)
        assert not (tmp_path / 'import').exists()

    def test_a_shape_or_a_size_that_does_not_fit_is_named(self, save, tmp_path):
        narrow = self.STATE | {
            f'blocks.{i}.mlp.fc1.{end}': self.STATE[f'blocks.{i}.mlp.fc1.{end}'][:256]
            for i in range(4)
            for end in ('weight', 'bias')
        }
        with pytest.raises(ConfigError, match=r'block/mlp/wide/\w+ has shape \[4, .*256\], and \[4, .*512\]'):
            imported(save(narrow), 'mae', tmp_path)
        shallow = {name: value for name, value in self.STATE.items() if not name.startswith('blocks.3')}
        with pytest.raises(ConfigError, match='is 128 wide with 3 layers, and must be one of demo'):
            imported(save(shallow), 'mae', tmp_path)


class TestAudioMae:
    """Sixteen steps of time, eight bands, patches of 16."""

    # Positions were made for a grid of (8, 16), and tokens are (16, 8): only the stored order is right.
    TABLE = sincos_table((8, 16), reference.WIDTH)
    STATE = reference.vit(channels=1, patch=16, count=128) | {
        'pos_embed': np.concatenate([np.full((1, reference.WIDTH), 0.3), TABLE])[None]
    }

    def test_it_is_the_same_network(self, save, run_encoder, tmp_path):
        directory, card = imported(save(self.STATE), 'audiomae', tmp_path)
        sound = spectrogram(256)
        ours = run_encoder(directory, 'audio', patchify_audio(sound, 16))
        embedded = reference.embedded(self.STATE, 'patch_embed.proj', sound[:, None])
        theirs = reference.normed(self.STATE, 'norm', vit_tokens(self.STATE, embedded))
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
        assert card['audio']['grid (time, frequency)'] == (16, 8)
        assert read_config(directory)['audio']['front_end'] == 'audiomae'

    def test_positions_are_those_of_the_file_whatever_grid_they_were_made_for(self, save, tmp_path):
        directory, _ = imported(save(self.STATE), 'audiomae', tmp_path)
        table = load_params(directory)[0]['encoder_audio']['positions']
        np.testing.assert_array_equal(table, self.TABLE)
        assert np.abs(table - sincos_table((16, 8), reference.WIDTH)).max() > 1


class TestCavMae:
    """Three layers a modality and a shared one; four steps of time, eight bands; pictures of 16 x 16."""

    STATE = reference.cavmae()

    def forward(self, picture, modality):
        """The pass of [b c y x] through three layers of its own and the shared one (epsilon 1e-5)."""
        x = reference.embedded(self.STATE, f'patch_embed_{modality}.proj', picture)
        x = x + self.STATE[f'pos_embed_{modality}'] + self.STATE[f'modality_{modality}']
        for i in range(3):
            x = reference.block(self.STATE, f'blocks_{modality}.{i}', x, epsilon=1e-5)
        x = reference.block(self.STATE, 'blocks_u.0', x, f'_{modality}', epsilon=1e-5)
        return reference.normed(self.STATE, f'norm_{modality}', x, epsilon=1e-5)

    def test_sound_is_the_same_in_another_order_of_tokens(self, save, run_encoder, tmp_path):
        directory, card = imported(save(self.STATE), 'cavmae', tmp_path)
        sound = spectrogram(64)
        ours = run_encoder(directory, 'audio', patchify_audio(sound, 16))
        theirs = self.forward(sound.swapaxes(1, 2)[:, None], 'a')  # frequency is the height
        in_time = theirs.reshape(2, 8, 4, -1).swapaxes(1, 2).reshape(theirs.shape)
        np.testing.assert_allclose(ours, in_time, atol=TOLERANCE)
        assert card['class_token'] is False
        assert read_config(directory)['audio']['front_end'] == 'cavmae'

    def test_a_picture_is_the_same(self, save, run_encoder, tmp_path):
        directory, _ = imported(save(self.STATE), 'cavmae', tmp_path)
        frames = pictures(1, 16)
        ours = run_encoder(directory, 'video', patchify_video(frames, 1, 8))
        np.testing.assert_allclose(ours, self.forward(channels_first(frames[:, 0]), 'v'), atol=TOLERANCE)

    def test_the_pass_of_both_modalities_is_left_out(self, save, tmp_path):
        _, card = imported(save(self.STATE), 'cavmae', tmp_path)
        left_out = set(card['source']['keys_left_out'])
        assert {'norm.weight', 'blocks_u.0.norm1.weight', 'blocks_a.0.norm2_v.bias'} <= left_out
        assert 'fusion' not in card['parts']


class TestMavil:
    """Two encoders and three layers of fusion; 2 x 8 tokens of sound, 2 x 2 x 2 of video."""

    STATE = reference.mavil()

    def test_tokens_after_fusion_are_the_same(self, save, tmp_path):
        directory, card = imported(save(self.STATE), 'mavil', tmp_path, frames=4)
        config = from_dict(read_config(directory))
        assert (config.model.fusion_layers, config.video_grid) == (3, (2, 2, 2))
        sound, frames = spectrogram(32), pictures(4, 16)
        model = PretrainingModel(config)
        ours = model.apply(
            {'params': load_params(directory)[0]},
            {'audio': patchify_audio(sound, 16), 'video': patchify_video(frames, 2, 8)},
            method=lambda model, x: model.fusion(*(model.encoder[m](x[m]) for m in ('audio', 'video'))),
        )
        state = self.STATE
        audio = vit_tokens(state, reference.embedded(state, 'patch_embed.proj', sound[:, None]))
        video = reference.embedded(state, 'patch_embed_v.proj', channels_first(frames))
        video = vit_tokens(state, video, 'blocks_v', 'cls_token_v', 'pos_embed_v')
        both = np.concatenate([audio, video], axis=1)
        for i in range(3):
            both = reference.block(state, f'blocks_av.{i}', both)
        np.testing.assert_allclose(np.concatenate(ours, axis=1), both, atol=TOLERANCE)
        assert card['source']['keys_left_out'] == [
            'fc_norm_av.bias', 'fc_norm_av.weight', 'head_av.bias', 'head_av.weight'
        ]  # fmt: skip

    def test_a_file_without_fusion_has_none(self, save, tmp_path):
        state = {key: value for key, value in self.STATE.items() if '_av' not in key}
        _, card = imported(save(state), 'mavil', tmp_path, frames=4)
        assert 'fusion' not in card['parts'] and not card['source']['keys_left_out']

    def test_pictures_alone_are_of_four_seconds(self, save, tmp_path):
        directory, card = imported(save(self.STATE), 'mavil', tmp_path, modalities=('video',), frames=4)
        assert read_config(directory)['data']['seconds'] == 4
        assert any('plain means of the tokens' in remark for remark in card['remarks'])

    def test_pictures_beside_longer_sound_last_as_long(self, save, tmp_path):
        directory, card = imported(save(self.STATE), 'mavil', tmp_path, frames=4)
        data = read_config(directory)['data']
        assert data['video_seconds'] == (4 if data['seconds'] > 4 else 0)
        assert card['video']['seconds'] == min(4, data['seconds'])

    def test_another_number_of_frames_is_refused(self, save, tmp_path):
        with pytest.raises(
            ConfigError, match='8 positions, which do not make a square picture at each of 4 times'
        ):
            imported(save(self.STATE), 'mavil', tmp_path, frames=8)
        with pytest.raises(ConfigError, match='--frames=3: must be a multiple of the 2 of a tubelet'):
            imported(save(self.STATE), 'mavil', tmp_path, frames=3)


STATES = {
    'mae': reference.vit(channels=3, patch=8, count=9),
    'audiomae': reference.vit(channels=1, patch=16, count=128),
    'cavmae': reference.cavmae(),
    'mavil': reference.mavil(),
}
OTHER_SHAPES = {
    'a row less': lambda x: x[1:],
    'a column less': lambda x: x[..., 1:],
    'an axis more': lambda x: x[None],
    'an axis less': lambda x: x.reshape(-1) if x.ndim > 1 else x[0],
    'nothing': lambda x: x[:0],
}


@pytest.mark.parametrize('layout', ['mae', 'mavil'])
def test_a_parameter_of_another_shape_is_an_error(save, tmp_path, layout):
    """Whatever the parameter: never another exception, and nothing is written."""
    state, accepted = STATES[layout], []
    # One layer of each stack is enough, and one modality where both are alike.
    names = [n for n in state if not re.search(r'\.[013]\.|^blocks_v|mask|decoder|fc_norm_av|head_av', n)]
    for name, change in zip(names, itertools.cycle(OTHER_SHAPES), strict=False):
        path = save(state | {name: OTHER_SHAPES[change](state[name])})
        try:
            imported(path, layout, tmp_path, frames=4)
        except ConfigError as error:
            assert str(path) in str(error)
        else:
            accepted.append((name, change))
    assert not accepted


def test_seconds_are_those_of_the_spectrogram():
    assert [seconds_of(n) for n in (1024, 512, 128, 416, 64, 16)] == [10, 5, 1, 4, 0.64, 0.2]


@pytest.mark.parametrize(('frames', 'seconds'), [(1024, 10), (512, 5), (128, 1)])
def test_a_clip_fills_the_spectrogram(save, tmp_path, frames, seconds):
    state = reference.vit(channels=1, patch=16, count=frames // 16 * 8)
    directory, _ = imported(save(state), 'audiomae', tmp_path)
    config = from_dict(read_config(directory))
    assert (config.audio.num_frames, config.data.seconds) == (frames, seconds)


@pytest.mark.parametrize(
    ('positions', 'grid'), [(1212, '101 x 12'), (1176, '98 x 12'), (600, '50 x 12'), (144, '12 x 12')]
)
def test_patches_that_overlap_are_refused(save, tmp_path, positions, grid):
    state = reference.vit(channels=1, patch=16, count=positions)
    with pytest.raises(ConfigError, match=f'has {positions} positions .* may be of {grid} .* overlap'):
        imported(save(state), 'audiomae', tmp_path)


@pytest.mark.parametrize('time', [1, 12, 128, 187])
def test_patches_side_by_side_are_not_taken_for_others(save, tmp_path, time):
    state = reference.vit(channels=1, patch=16, count=8 * time)
    grid = imported(save(state), 'audiomae', tmp_path)[1]['audio']['grid (time, frequency)']
    assert grid == (time, 8)


@pytest.mark.parametrize(
    ('layout', 'name'),
    [
        ('mae', 'blocks.0.gamma_1'),
        ('mae', 'dist_token'),
        ('audiomae', 'blocks.3.attn.q_norm.weight'),
        ('cavmae', 'cls_token_a'),
        ('cavmae', 'register_tokens'),
        ('cavmae', 'constrative_head_audio.0.norm1.weight'),
        ('mavil', 'blocks_av.0.ls1.gamma'),
    ],
)
def test_a_parameter_that_the_layout_does_not_know_is_refused(save, tmp_path, layout, name):
    state = STATES[layout] | {name: np.ones(reference.WIDTH)}
    with pytest.raises(ConfigError, match=f'1 parameters that --layout={layout} does not know: {name}'):
        imported(save(state), layout, tmp_path, frames=4)
    assert not (tmp_path / 'import').exists()


def test_what_belongs_to_the_other_encoder_is_not_unknown(save, tmp_path):
    _, card = imported(save(STATES['cavmae']), 'cavmae', tmp_path, modalities=('audio',))
    assert 'blocks_v.0.norm1.weight' in card['source']['keys_left_out']


def test_a_file_with_a_value_that_is_not_finite_is_refused(save, tmp_path):
    state = {name: value.copy() for name, value in STATES['mae'].items()}
    state['blocks.2.mlp.fc1.weight'][3, 5] = np.nan
    with pytest.raises(ConfigError, match='1 of the 65,536 values of blocks.2.mlp.fc1.weight are not finite'):
        imported(save(state), 'mae', tmp_path)
    state['blocks.2.mlp.fc1.weight'][3, 5] = 0
    state['decoder_blocks.0.norm1.weight'][:] = np.nan  # is not used
    imported(save(state), 'mae', tmp_path)
