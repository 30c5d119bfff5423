"""Where a media file lies in a shard."""

from __future__ import annotations

from typing import NamedTuple


class Inside(NamedTuple):
    """A media file that is part of a shard: of a tar, or of a Parquet file.

    Attributes:
        shard: path of the shard below the input, with slashes.
        begin: of a tar, where the file begins in it, in bytes, after decompression; of Parquet, its row.
        size: of the file in bytes; of Parquet, that of its rows on average.
        column: of Parquet, the column that has it; empty for a tar.
        stretch: parts of a shard that can be read without what is before them have different numbers.
    """

    shard: str
    begin: int
    size: int = 0
    column: str = ''
    stretch: int = 0

    @property
    def can_begin_anywhere(self) -> bool:
        """Whether a part of a stretch can be read without reading what is before it."""
        return self.shard.lower().endswith(('.tar', '.parquet'))
