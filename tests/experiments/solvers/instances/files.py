"""Instance files made in a test."""

from pathlib import Path

GRAPH = "4 4 \n1 2 1\n\n2 3 -2\n3 4 1\n1 4 3\n"
MATRIX = "4 4\n1 1 -5\n1 2 3\n3 4 -7\n2 2 4\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
