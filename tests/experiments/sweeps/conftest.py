"""Databases of the tests in this process are not flushed to the disk: half of a small sweep's time goes into that."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy


@pytest.fixture(autouse=True, scope="package")
def _unflushed() -> Iterator[None]:
    def unflushed(connection: Any, record: Any) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", unflushed)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", unflushed)
