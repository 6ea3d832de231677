"""One wording for a name that does not exist, with the nearest that does."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_LISTED = 40


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """The error to raise: "unknown {kind} 'anneall'; did you mean 'anneal'? There are anneal, exact, ..."."""
    names = list(known)
    listed = ", ".join([*names[:_MOST_LISTED], *(["..."] if len(names) > _MOST_LISTED else [])])
    return ValueError(f"unknown {kind} {name!r}{hint(name, names)} There are {listed or 'none'}")


def hint(name: object, known: Iterable[str]) -> str:
    """What follows a name that does not exist: "; did you mean 'anneal'?", or "." where there is none at all."""
    nearest = get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f"; did you mean {nearest[0]!r}?" if nearest else "."
