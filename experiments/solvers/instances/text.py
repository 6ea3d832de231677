"""Lines of a text file with their numbers, so that a mistake in one is named."""

from collections.abc import Iterator
from pathlib import Path

from experiments.solvers.instances.problem import InstanceError

Line = tuple[int, list[str]]
Lines = Iterator[Line]


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise InstanceError(f"{path}: not a text file") from None
    except OSError as error:
        raise InstanceError(f"{path}: {error.strerror or error}") from None


def lines_of(path: Path) -> Lines:
    """(line number, words) of the lines that are not blank."""
    return iter([(k, line.split()) for k, line in enumerate(text_of(path).splitlines(), 1) if line.strip()])


def next_line(path: Path, lines: Lines, wanted: str) -> Line:
    for line in lines:
        return line
    raise InstanceError(f"{path}:{len(text_of(path).splitlines())}: the file ends where it should have {wanted}")


def nothing_left(path: Path, lines: Lines) -> None:
    for number, words in lines:
        raise InstanceError(f"{path}:{number}: more entries than announced, from {' '.join(words)!r} on")


def count_of(path: Path, number: int, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        raise InstanceError(f"{path}:{number}: expected a count, got {word!r}")
    return int(word)
