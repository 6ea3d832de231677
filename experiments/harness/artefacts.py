"""What cells of an experiment share and nobody wants twice, a trained network above all: files beside their results.

with kept_in(folder): ...           the command that runs the cells says where
path = folder()                     a cell asks; None: nowhere, it lives as long as the process
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_folder: ContextVar[Path | None] = ContextVar("artefacts", default=None)


def folder() -> Path | None:
    """Where files are kept, which need not exist yet."""
    return _folder.get()


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Inside, `folder()` is this path."""
    token = _folder.set(path)
    try:
        yield
    finally:
        _folder.reset(token)
