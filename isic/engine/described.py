"""The tables of a run's data, as whoever hashes or compares runs sees them."""

from collections.abc import Sequence
from typing import Protocol

from isic.index.schema import Index
from isic.split.options import Split


class Described(Protocol):
    """A run's data, of which no image is looked at: a data module, or its tables alone."""

    @property
    def index(self) -> Index: ...

    @property
    def split(self) -> Split: ...

    @property
    def metadata(self) -> Sequence[str]: ...

    @property
    def auxiliary(self) -> Sequence[str]: ...
