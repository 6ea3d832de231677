"""A PostgreSQL server of one's own on loopback, from Debian's packages, as a user that is not root."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    binaries: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://sweeper@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run(
            "pg_ctl", "-w", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options, "start"
        )

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "-D", str(self.folder / "data"), "-m", "immediate", "stop")

    def run(self, program: str, *arguments: str) -> None:
        """As the user postgres where we are root, which the server refuses to run as."""
        command = [str(self.binaries / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=60)


def missing() -> str | None:
    """Why there can be no server here, in a line."""
    if _binaries() is None:
        return "PostgreSQL is not installed"
    return None if importlib.util.find_spec("psycopg") else "psycopg is not installed"


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server with an empty database, in a folder of its own: those of pytest are closed to other users."""
    binaries = _binaries()
    assert binaries is not None
    with socket.socket() as free, tempfile.TemporaryDirectory() as name:
        free.bind(("127.0.0.1", 0))
        server = Server(binaries, Path(name), free.getsockname()[1])
        free.close()
        if os.getuid() == 0:
            shutil.chown(name, "postgres", "postgres")
        server.run("initdb", "-D", f"{name}/data", "-U", "sweeper", "-A", "trust", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None
