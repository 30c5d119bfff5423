"""The cards and the tables of a pretraining run's report, from its summary."""

from diffmavil_jax.report.content import Headline
from diffmavil_jax.tasks.reports.pretraining_scores import headlines, tables
from diffmavil_jax.units import spell


def test_headlines_come_from_nested_or_dotted_names_and_only_where_known():
    nested = {'retrieval': {'a2v': {'r10': 0.5}}, 'untrained': {'retrieval': {'a2v': {'r10': 0.04}}}}
    dotted = {'retrieval.a2v.r10': 0.5, 'untrained.retrieval.a2v.r10': 0.04}
    cards = headlines(nested)
    assert [(card.value, card.detail) for card in cards] == [('50.0 %', 'untrained 4.0 %')]
    assert headlines(dotted) == cards
    assert headlines({}) == []
    timed = headlines({'clips_seen': 28160, 'time': {'total_s': 251}})
    assert timed == [Headline('Clips seen', '28,160', 'in 4 min 11 s')]


def test_coverage_stands_beside_every_score():
    scores = {'retrieval': {'a2v': {'r10': 0.5}}, 'reconstruction': {'audio': {'low': 0.3}}}
    covered = '17,249 of 20,371 evaluation clips present'
    (card,) = headlines(scores | {'coverage': covered})
    assert card.detail == covered
    found = tables(scores | {'coverage': covered})
    assert len(found) == 2 and all(table.caption.endswith(f' {covered}.') for table in found)
    assert not any('present' in table.caption for table in tables(scores | {'coverage': ''}))


def test_the_caption_says_of_how_many_galleries_retrieval_is_the_mean():
    found = {'r10': 0.5, 'clips': 256.0}
    (one,) = tables({'retrieval': {'a2v': found}, 'coverage': ''})
    (several,) = tables({'retrieval': {'a2v': found | {'galleries': 16.0}}, 'coverage': ''})
    assert 'galleries' not in one.caption and 'the mean of 16 such galleries' in several.caption


def test_what_is_saved_names_its_reference_and_what_is_added_reads_so():
    macs = {'saved_fraction': 0.24, 'reference': 'MAViL at a fixed mask of 0.8'}
    (saved,) = headlines({'macs': macs})
    assert (saved.label, saved.value) == ('Training compute saved', '24.0 %')
    assert 'MAViL at a fixed mask of 0.8' in saved.detail
    (added,) = headlines({'macs': macs | {'saved_fraction': -0.7}})
    assert (added.label, added.value) == ('Training compute added', '70.0 %')


def test_an_r2_below_zero_reads_none_and_is_never_the_best():
    factors = {'audio': {'impacts': -0.01}, 'video': {'impacts': 0.2}, 'fused': {'impacts': -0.1}}
    worse = {feature: {'impacts': -0.5} for feature in factors}
    (table,) = tables(
        {'world': {'factors': factors}, 'untrained': {'world': {'factors': worse}}, 'coverage': ''}
    )
    assert table.columns == ['Trained', 'Untrained']
    assert [[spell(value, row.unit) for value in row.values] for row in table.rows] == [
        ['none', 'none'], ['0.2', 'none'], ['none', 'none']
    ]  # fmt: skip
    assert [row.best() for row in table.rows] == [frozenset(), {0}, frozenset()]
