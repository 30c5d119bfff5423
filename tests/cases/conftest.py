"""Fixtures of the tests of data, for these cases too."""

from tests.data.conftest import example, open_folder

__all__ = ['example', 'open_folder']
