import jax
import numpy as np

from diffmavil_jax.objectives.randomness import clip_keys


def data(seed, stream, positions):
    return np.asarray(jax.random.key_data(clip_keys(seed, stream, np.asarray(positions, np.int32))))


def test_a_clips_key_depends_on_its_position_alone():
    whole = data(3, 'audio mask', range(100, 132))
    np.testing.assert_array_equal(data(3, 'audio mask', [105]), whole[5:6])
    np.testing.assert_array_equal(data(3, 'audio mask', [131, 102, 117]), whole[[31, 2, 17]])
    jitted = jax.jit(lambda p: jax.random.key_data(clip_keys(3, 'audio mask', p)))
    np.testing.assert_array_equal(jitted(np.arange(100, 132, dtype=np.int32)), whole)


def test_positions_seeds_and_streams_have_keys_of_their_own():
    drawn = [
        data(seed, stream, range(50))
        for seed in (0, 1)
        for stream in ('first audio mask', 'first video mask', 'second audio mask', 'first audio noise')
    ]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 2 * 4 * 50


def test_keys_are_the_same_in_every_process():
    # A run resumes with these keys, so they must not depend on the process, as `hash` does.
    expected = [[3158842881, 2646811090], [4265767044, 2354581549]]
    assert data(0, 'first audio mask', [7, 1_000_000]).tolist() == expected
