import numpy as np

from diffmavil_jax.models.patches import (
    patchify_audio,
    patchify_video,
    take_tokens,
    unpatchify_audio,
    unpatchify_video,
)


def test_audio_tokens_are_time_major_and_their_values_time_then_mel():
    spectrogram = np.arange(4.0 * 6).reshape(1, 4, 6)  # value = 6 * time + mel
    expected = [
        [0, 1, 6, 7],
        [2, 3, 8, 9],
        [4, 5, 10, 11],  # all of the spectrum at times 0 and 1, then times 2 and 3
        [12, 13, 18, 19],
        [14, 15, 20, 21],
        [16, 17, 22, 23],
    ]
    np.testing.assert_array_equal(patchify_audio(spectrogram, 2)[0], expected)


def test_video_tokens_are_in_time_height_width_order_and_their_values_frame_row_column_channel():
    t, y, x, c = np.meshgrid(np.arange(4.0), np.arange(4), np.arange(6), np.arange(3), indexing='ij')
    frames = 1000 * t + 100 * y + 10 * x + c
    patches = np.asarray(patchify_video(frames[None], 2, 2)[0])
    assert patches.shape == (2 * 2 * 3, 2 * 2 * 2 * 3)
    corners = [2000 * i + 200 * j + 20 * k for i in range(2) for j in range(2) for k in range(3)]
    np.testing.assert_array_equal(patches[:, 0], corners)
    values = [
        1000 * i + 100 * j + 10 * k + m
        for i in range(2)
        for j in range(2)
        for k in range(2)
        for m in range(3)
    ]
    np.testing.assert_array_equal(patches[0], values)


def test_unpatchify_is_the_inverse():
    rng = np.random.default_rng(0)
    spectrogram = rng.normal(size=(2, 12, 8)).astype(np.float32)
    np.testing.assert_array_equal(unpatchify_audio(patchify_audio(spectrogram, 4), (3, 2), 4), spectrogram)
    frames = rng.normal(size=(2, 6, 8, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(unpatchify_video(patchify_video(frames, 3, 4), (2, 2, 3), 3, 4), frames)


def test_take_tokens_picks_different_tokens_of_each_clip():
    tokens = np.arange(2.0 * 4 * 3).reshape(2, 4, 3)
    taken = take_tokens(tokens, np.array([[3, 0], [1, 1]]))
    np.testing.assert_array_equal(taken, [[tokens[0, 3], tokens[0, 0]], [tokens[1, 1], tokens[1, 1]]])
