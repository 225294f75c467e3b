"""What each reader of a public data set declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.datasets.raw import RawData


@dataclass(frozen=True)
class Source:
    """A public data set.

    Attributes:
        about: one line: what it is.
        published: where its owner publishes it.
        licence: its licence or terms, in a few words.
        files: the files that ``read`` expects below the raw folder, for messages.
        read: reads the folder of the raw download. Raises a UserError that names the file and what was
            expected if files are missing, cut off, swapped or damaged.
    """

    about: str
    published: str
    licence: str
    files: str
    read: Callable[[Path], RawData]
