"""The counts of the prepare report."""

import dataclasses

from diffmavil_jax.data.prepare import work
from diffmavil_jax.data.prepare.summary import Summary


def test_the_summary_counts():
    summary, outcome = (
        Summary(),
        work.Outcome('a@0', 'a', 'train', seconds=2.0, num_bytes=5, source_hash='0' * 64),
    )
    for change in [
        {},
        {'id': 'a@2'},  # another clip of the same file is no copy
        {'id': 'b@0', 'file': 'b'},
        {'id': 'c@0', 'file': 'c', 'split': 'test'},
        {'id': 'd@0', 'file': 'd', 'split': 'test', 'source_hash': '1' * 64, 'note': 'odd'},
        {'id': 'e@0', 'reason': 'too short: 1 s'},
        {'id': 'f@0', 'reason': 'too short: 2 s'},
    ]:
        summary.add(dataclasses.replace(outcome, **change))
    report = summary.to_dict()
    assert (report['listed'], report['written'], report['seconds'], report['bytes']) == (7, 5, 10.0, 25)
    assert report['refused'] == {'too short': 2}
    assert report['refused_examples']['too short'][1] == {
        'id': 'f@0',
        'split': 'train',
        'reason': 'too short: 2 s',
    }
    assert report['splits']['train']['written'] == 3 and summary.expected == {'train': 5, 'test': 2}
    assert report['duplicates']['files'] == 2 and report['duplicates']['across_splits'] == 1
    assert [place['file'] for place in report['duplicates']['examples'][0]] == ['a', 'b', 'c']
    assert report['warnings'] == ['1 files are, byte for byte, in more than one split: the evaluation leaks']
    assert report['notes'] == ['1 clips: odd']
