"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port, gone when they end.

It does not run as root (PostgreSQL refuses that): root starts it as the user `postgres` or `nobody`.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "hidden@word/%"
"""Of the role `guarded`, the only one that is asked for one; full of what must be escaped in an address."""
_HBA = "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "max_connections": "10"}


@dataclass(frozen=True)
class Postgres:
    """A running server with the database `tests`, the role `admin` and the role `guarded`."""

    port: int

    def url(self, role: str = "admin") -> str:
        return f"postgresql+psycopg://{role}@127.0.0.1:{self.port}/tests"

    def execute(self, *statements: str) -> list[Any]:
        """Run statements as `admin`; the rows of the last one, if it has any."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="admin", dbname="tests", autocommit=True
        ) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def binaries() -> Path | None:
    """The folder with initdb and postgres, of the newest version there is; None where PostgreSQL is absent."""
    named = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return Path(named).parent if named else found[-1].parent if found else None


@contextlib.contextmanager
def running_postgres(bin_dir: Path) -> Iterator[Postgres]:
    """Start a server, and stop it at once at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bertsmith-postgres-"))
    user = _unprivileged_user()
    as_user: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = folder / "data"
    initdb = [bin_dir / "initdb", "-D", data, "-U", "admin", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    try:
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **as_user)
        (data / "pg_hba.conf").write_text(_HBA)
        port = _free_port()
        settings = _SETTINGS | {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(folder),
        }
        command = [bin_dir / "postgres", "-D", data, *(f"--{key}={value}" for key, value in settings.items())]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log, stdout=log, **as_user) as server:
            try:
                yield _ready(Postgres(port), server, folder / "log")
            finally:
                server.send_signal(signal.SIGQUIT)  # without waiting for whoever is connected
                server.wait()
    finally:
        shutil.rmtree(folder)


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Who runs the server: None for the user of the tests, if it is not root."""
    if os.geteuid():
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(postgres: Postgres, server: subprocess.Popen[bytes], log: Path) -> Postgres:
    """Wait for the server and make database and role."""
    import psycopg

    give_up = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(
                host="127.0.0.1", port=postgres.port, user="admin", dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("CREATE DATABASE tests")
                connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'".encode())
            return postgres
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text()}") from None
            time.sleep(0.05)
