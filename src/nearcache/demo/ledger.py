"""One account in SQLite that takes fencing tokens: whoever comes with an older one than the last is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = """
    CREATE TABLE account (balance INTEGER NOT NULL, fence INTEGER NOT NULL);
    CREATE TABLE frozen (pid INTEGER NOT NULL);
    INSERT INTO account VALUES (0, 0);
    INSERT INTO frozen VALUES (0);
"""


class RefusedError(Exception):
    """Somebody else has had the lock since."""


class Ledger:
    """An account that programs change under a lock: they read it, and write what they have made of that."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self) -> None:
        """Make the database; the account is empty."""
        with closing(self._open()) as database:
            database.executescript(TABLES)

    def read(self, token: int) -> int:
        """Return the balance, and shut out everybody who had the lock before."""
        return self._fenced("UPDATE account SET fence = :token WHERE fence <= :token RETURNING balance", token=token)

    def write(self, token: int, balance: int) -> None:
        """Store the balance."""
        change = "UPDATE account SET balance = :balance, fence = :token WHERE fence <= :token RETURNING balance"
        self._fenced(change, token=token, balance=balance)

    def _fenced(self, change: str, **values: int) -> int:
        with closing(self._open()) as database, database:
            rows = database.execute(change, values).fetchall()
        if not rows:
            raise RefusedError
        return int(rows[0][0])

    # For the scene

    def balance(self) -> int:
        """Return the balance, whoever has the lock."""
        with closing(self._open()) as database:
            return int(database.execute("SELECT balance FROM account").fetchone()[0])

    def may_freeze(self, pid: int) -> bool:
        """Note that a process is about to be frozen; tell whether somebody will let it go on."""
        with closing(self._open()) as database, database:
            return database.execute("UPDATE frozen SET pid = ?", (pid,)).rowcount == 1

    def frozen(self) -> int:
        """Return the process that is about to be frozen, or is; 0 if none is yet."""
        with closing(self._open()) as database:
            return int(database.execute("SELECT pid FROM frozen").fetchone()[0])

    def freeze_no_more(self) -> int:
        """Let no other process freeze; return the one that has, or 0."""
        with closing(self._open()) as database, database:
            return int(database.execute("DELETE FROM frozen RETURNING pid").fetchall()[0][0])

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30.0)
