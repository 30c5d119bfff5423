import jax
import numpy as np
import pytest

from diffmavil_jax.objectives.masking import random_masks


def masks(clips=64, tokens=20, visible=4, decoded=16, seed=0):
    keys = jax.random.split(jax.random.key(seed), clips)
    return [np.asarray(ids) for ids in random_masks(keys, tokens, visible, decoded)]


def test_visible_and_masked_tokens_are_a_partition():
    visible, masked = masks()
    assert visible.shape == (64, 4) and masked.shape == (64, 16)
    for one, other in zip(visible, masked, strict=True):
        assert sorted([*one, *other]) == list(range(20))


def test_partial_decoding_takes_different_masked_tokens():
    visible, decoded = masks(decoded=5)
    assert decoded.shape == (64, 5)
    for one, other in zip(visible, decoded, strict=True):
        assert len({*one, *other}) == 9


def test_every_token_is_equally_likely():
    visible, decoded = masks(clips=4_000, decoded=5)
    np.testing.assert_allclose(np.bincount(visible.ravel(), minlength=20) / 4_000, 4 / 20, atol=0.03)
    np.testing.assert_allclose(np.bincount(decoded.ravel(), minlength=20) / 4_000, 5 / 20, atol=0.03)


@pytest.mark.parametrize('seed', [0, 1])
def test_clips_have_masks_of_their_own(seed):
    visible, _ = masks(seed=seed)
    assert len({tuple(sorted(ids)) for ids in visible}) > 60
    assert not np.array_equal(visible, masks(seed=seed + 2)[0])


def test_no_decoded_tokens():
    _, decoded = masks(decoded=0)
    assert decoded.shape == (64, 0)
