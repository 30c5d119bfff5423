import jax
import numpy as np
import pytest

from diffmavil_jax.objectives.masking import contrast, contrast_masks, random_masks


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


def contrasts(scale, power, visible, decoded, clips=4_000):
    """Masks of clips whose tokens have patches of values -s and s."""
    patches = np.asarray(scale, np.float32)[None, :, None] * np.array([-1, 1, -1, 1], np.float32)
    keys = jax.random.split(jax.random.key(0), clips)
    patches = np.broadcast_to(patches, (clips, *patches.shape[1:]))
    return [np.asarray(ids) for ids in contrast_masks(keys, patches, power, visible, decoded)]


@pytest.mark.parametrize('power', [0.5, 1.0, 2.0])
def test_one_visible_token_is_drawn_in_proportion_to_its_contrast(power):
    scale = np.array([1.0, 2.0, 3.0, 6.0])
    visible, _ = contrasts(scale, power, visible=1, decoded=3)
    weights = (scale / scale.mean() + 0.1) ** power
    np.testing.assert_allclose(
        np.bincount(visible.ravel(), minlength=4) / 4_000, weights / weights.sum(), atol=0.03
    )


def test_several_are_drawn_one_after_the_other_without_replacement():
    scale, rng = np.array([0.5, 1.0, 2.0, 4.0, 8.0]), np.random.default_rng(0)
    visible, _ = contrasts(scale, 1.0, visible=3, decoded=2)
    weights = scale / scale.mean() + 0.1
    drawn = [rng.choice(5, 3, replace=False, p=weights / weights.sum()) for _ in range(4_000)]
    for index in range(3):  # the first, the second and the third token that is drawn
        ours, theirs = (np.bincount([ids[index] for ids in rows], minlength=5) for rows in (visible, drawn))
        np.testing.assert_allclose(ours / 4_000, theirs / 4_000, atol=0.04)


def test_what_contrast_masks_is_a_partition_and_decoded_evenly():
    scale = np.r_[np.zeros(10), np.full(10, 5.0)]
    visible, masked = contrasts(scale, 1.0, visible=6, decoded=14, clips=500)
    for one, other in zip(visible, masked, strict=True):
        assert sorted([*one, *other]) == list(range(20))
    _, decoded = contrasts(scale, 1.0, visible=6, decoded=4, clips=500)
    assert all(len(set(ids)) == 4 for ids in decoded)
    # They are drawn from the masked tokens, and tokens without contrast are masked more often.
    shown = np.bincount(visible.ravel(), minlength=20)
    expected = (500 - shown) * 4 / 14
    np.testing.assert_allclose(np.bincount(decoded.ravel(), minlength=20), expected, atol=45)


@pytest.mark.parametrize('scale', [np.zeros(12), np.full(12, 1e-30), np.full(12, 1e3)])
def test_where_nothing_stands_out_every_token_is_equally_likely(scale):
    visible, _ = contrasts(scale, 2.0, visible=3, decoded=9)
    np.testing.assert_allclose(np.bincount(visible.ravel(), minlength=12) / 4_000, 3 / 12, atol=0.03)


def test_a_flat_coloured_patch_has_no_contrast():
    rng = np.random.default_rng(0)
    blue = np.tile(np.float32([-1.2, 0.3, 1.9]), 16)
    grey = np.repeat(rng.normal(size=16).astype(np.float32), 3)
    colours = rng.normal(size=48).astype(np.float32)
    scores = contrast(np.stack([blue, grey, colours])[None], channels=3)[0]
    by_hand = [np.sqrt(np.mean([patch[c::3].var() for c in range(3)])) for patch in (blue, grey, colours)]
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5, atol=1e-6)
    assert scores[0] < 1e-6


def test_pictures_are_drawn_by_the_contrast_within_their_colours():
    blue, grey = np.tile(np.float32([-3, 0, 3]), 16), np.repeat(np.float32([-1, 1] * 8), 3)
    patches = np.broadcast_to(np.stack([blue, grey]), (2_000, 2, 48))
    keys = jax.random.split(jax.random.key(0), 2_000)
    visible, _ = contrast_masks(keys, patches, 1.0, 1, 1, channels=3)
    assert np.asarray(visible).mean() == pytest.approx(2.1 / 2.2, abs=0.02)
