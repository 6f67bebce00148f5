"""What one world is made of: a database in memory, its owner, and what the task's solver has said so far.

The whole world belongs to one person, the supervisor; others appear as contacts, payers and payees. Left out: the apps
(apps/), how a world is filled (seed.py), and how it is judged (evaluation.py).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Json = Any
Row = dict[str, Any]
Snapshot = dict[str, dict[int, Row]]
"""Table name to row id to row."""

SCHEMA = """
CREATE TABLE phone_contacts (id INTEGER PRIMARY KEY, first_name TEXT, last_name TEXT, email TEXT, phone_number TEXT,
    relationships TEXT);
CREATE TABLE phone_messages (id INTEGER PRIMARY KEY, phone_number TEXT, direction TEXT, message TEXT, sent_at TEXT);
CREATE TABLE wallet_transactions (id INTEGER PRIMARY KEY, email TEXT, direction TEXT, amount REAL, note TEXT,
    created_at TEXT);
CREATE TABLE wallet_requests (id INTEGER PRIMARY KEY, email TEXT, direction TEXT, amount REAL, note TEXT, status TEXT,
    created_at TEXT);
CREATE TABLE music_songs (id INTEGER PRIMARY KEY, title TEXT, artist TEXT, genre TEXT, duration INTEGER,
    release_year INTEGER);
CREATE TABLE music_likes (id INTEGER PRIMARY KEY, song_id INTEGER);
CREATE TABLE music_playlists (id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE music_playlist_songs (id INTEGER PRIMARY KEY, playlist_id INTEGER, song_id INTEGER);
CREATE TABLE notes_notes (id INTEGER PRIMARY KEY, title TEXT, content TEXT, updated_at TEXT);
"""
TABLES = tuple(line.split()[2] for line in SCHEMA.splitlines() if line.startswith("CREATE TABLE"))


class ApiError(Exception):
    """An API's refusal: an HTTP status and a message, which the solver reads."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody; ``relationships`` are to the supervisor."""

    first_name: str
    last_name: str
    email: str
    phone_number: str
    relationships: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}".strip()


@dataclass(slots=True)
class State:
    """One world.

    Attributes:
        supervisor: whose world it is.
        now: the world's clock, which stands still: ``YYYY-MM-DDTHH:MM:SS``.
        birthday, sex: of the supervisor: ``YYYY-MM-DD``, and "female" or "male".
        passwords: of the supervisor, by app.
        signed_in: whether APIs do without an access token (the compact flavour).
        instruction: the task in words.
        tokens: access tokens handed out, and for which app.
        answer, status: what ``complete_task`` was given; status is None until then.
        calls: how often each "app.api" was called.
    """

    supervisor: Person
    now: str
    birthday: str = ""
    sex: str = ""
    passwords: dict[str, str] = field(default_factory=dict)
    signed_in: bool = False
    instruction: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    answer: Json = None
    status: str | None = None
    calls: Counter[str] = field(default_factory=Counter)
    db: sqlite3.Connection = field(default_factory=lambda: open_database())

    def rows(self, query: str, *values: Any) -> list[Row]:
        """All rows of a query."""
        return [dict(row) for row in self.db.execute(query, values)]

    def row(self, table: str, row_id: int, what: str) -> Row:
        """One row by its id.

        Raises:
            ApiError: there is none; ``what`` names it.
        """
        found = self.rows(f"SELECT * FROM {table} WHERE id = ?", row_id)
        if not found:
            raise ApiError(f"The {what} with id {row_id} does not exist.", 409)
        return found[0]

    def insert(self, table: str, **values: Any) -> int:
        """Add a row; its id."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        row_id = self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())).lastrowid
        assert row_id is not None
        return row_id

    def update(self, table: str, row_id: int, **values: Any) -> None:
        """Change columns of a row."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        self.db.execute(f"UPDATE {table} SET {assignments} WHERE id = ?", (*values.values(), row_id))

    def delete(self, table: str, row_id: int) -> None:
        """Remove a row."""
        self.db.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))

    def snapshot(self) -> Snapshot:
        """Every row of every table."""
        return {table: {row["id"]: row for row in self.rows(f"SELECT * FROM {table}")} for table in TABLES}


def open_database() -> sqlite3.Connection:
    """An empty database in memory. It may be closed from another thread than it was used on."""
    db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.executescript(SCHEMA)
    return db
