"""The page of a prepare report, from its data."""

import html.parser

from diffmavil_jax.report.prepare_page import render_prepared

PART = {
    'listed': 5,
    'written': 3,
    'seconds': 7260.0,
    'bytes': 2_500_000,
    'refused': {'missing': 1, 'too short': 1},
}
REPORT = {
    'dataset': 'mine',
    'source': 'csv',
    'input': '/in',
    'runner': 'DirectRunner',
    'workers': 2,
    'shards': 1,
    'settings': {'seconds': None, 'keep': [], 'modalities': ['audio', 'video']},
    'listing_notes': ['a note on the list'],
    'notes': ['2 clips: a note'],
    'warnings': ['1 files are in two splits'],
    **PART,
    'splits': {'train': PART},
    'refused_examples': {
        'missing': [{'id': '<b>x</b>@0.000', 'split': 'train', 'reason': 'missing'}],
        'too short': [],
    },
    'duplicates': {
        'files': 1,
        'across_splits': 1,
        'examples': [[{'file': 'a.mp4', 'split': 'train'}, {'file': 'b.mp4', 'split': 'test'}]],
    },
}


class Text(html.parser.HTMLParser):
    """Collects the words of a page and checks that its elements are closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words = [], ''
        self.feed(page)
        self.words = ' '.join(self.words.split())

    def handle_starttag(self, tag, attributes):
        if tag != 'meta':
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data + ' '


def test_the_page_has_every_number_and_reason():
    page = Text(render_prepared(REPORT))
    assert page.open == []
    for words in (
        'Prepared: mine', 'of 5 clips written', '2 h 1 min', '2.4 MiB', 'missing (1)',
        '<b>x</b>@0.000 (train): missing',
        'and 1 more, in manifest.jsonl', 'a.mp4 (train) = b.mp4 (test)', '1 files are in two splits',
        'a note on the list', '2 clips: a note', 'audio, video',
    ):  # fmt: skip
        assert words in page.words


def test_empty_sections_are_left_out():
    nothing = {
        'refused': {},
        'refused_examples': {},
        'written': 5,
        'notes': [],
        'listing_notes': [],
        'warnings': [],
    }
    no_copies = {'duplicates': {'files': 0, 'across_splits': 0, 'examples': []}}
    page = Text(render_prepared(REPORT | nothing | no_copies | {'splits': {'train': PART | nothing}}))
    assert not any(words in page.words for words in ('Refused', 'Copies', 'Notes'))
