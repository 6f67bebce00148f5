"""What a scenario is: a function that sets a task in a filled world. It is registered under its name and difficulty.

A scenario is used many times over: each time its instruction is worded alike in three variants about different people,
songs and sums. Left out: the scenarios (easy.py, medium.py, hard.py) and which split each is in (datasets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlpost.envs.errands.evaluation import Expected
from rlpost.envs.errands.seed import Seed
from rlpost.envs.errands.state import Person


@dataclass(frozen=True, slots=True)
class Plan:
    """One task.

    Attributes:
        instruction: what the solver is told.
        solution: blocks of code, one a turn, that solve it with the knowledge of the instruction alone.
        expected: what must change.
        answer: what must be answered, or None where nothing is asked.
    """

    instruction: str
    solution: Sequence[str]
    expected: Sequence[Expected] = field(default_factory=tuple)
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A registered scenario."""

    name: str
    difficulty: int
    build: Callable[[Seed], Plan]


SCENARIOS: dict[str, Scenario] = {}


def scenario(difficulty: int) -> Callable[[Callable[[Seed], Plan]], Callable[[Seed], Plan]]:
    """Register a function that sets a task."""

    def register(build: Callable[[Seed], Plan]) -> Callable[[Seed], Plan]:
        name = build.__name__
        SCENARIOS[name] = Scenario(name, difficulty, build)
        return build

    return register


def look(app: str, *apis: str) -> str:
    """A first turn that looks APIs up in the docs."""
    lines = [f"print(apis.api_docs.show_api_descriptions(app_name={app!r}))"] if not apis else []
    return "\n".join(lines + [f"print(apis.api_docs.show_api_doc(app_name={app!r}, api_name={api!r}))" for api in apis])


def sign_in(*apps: str) -> str:
    """A turn that signs in to apps: TOKEN = {app: access token} from then on."""
    return (
        'passwords = {row["account_name"]: row["password"] for row in apis.supervisor.show_account_passwords()}\n'
        "me = apis.supervisor.show_profile()\n"
        + "\n".join(
            f'{app}_token = apis.{app}.login(username=me["email"], password=passwords["{app}"])["access_token"]'
            for app in apps
        )
    )


PAGES = """def all_pages(api, **arguments):
    rows, index = [], 0
    while page := api(page_index=index, page_limit=20, **arguments):
        rows, index = rows + page, index + 1
    return rows
"""
"""A helper that solutions define in one of their turns."""

DONE = "apis.supervisor.complete_task()"


def sent(person: Person, amount: float, note: str | None = None) -> Expected:
    """Money sent to somebody."""
    values: dict[str, Any] = {"email": person.email, "direction": "sent", "amount": float(amount)}
    if note is not None:
        values["note"] = note
    return Expected(f"${amount:g} is sent to {person.name}.", "wallet_transactions", "added", values=values)


def requested(person: Person, amount: float, note: str) -> Expected:
    """Money requested from somebody."""
    values = {"email": person.email, "direction": "sent", "amount": float(amount), "note": note, "status": "pending"}
    return Expected(f"${amount:g} is requested from {person.name}.", "wallet_requests", "added", values=values)


def texted(person: Person, message: str) -> Expected:
    """A text message sent to somebody."""
    values = {"phone_number": person.phone_number, "direction": "sent", "message": message}
    return Expected(f"A text message is sent to {person.name}.", "phone_messages", "added", values=values)


def playlist(seed: Seed, title: str, songs: Iterable[Mapping[str, Any]]) -> list[Expected]:
    """A new playlist with these songs."""
    new_id = 1 + max(row["id"] for row in seed.state.rows("SELECT id FROM music_playlists"))
    made = Expected(f"The playlist '{title}' is made.", "music_playlists", "added", values={"title": title})
    return [made] + [
        Expected(
            f"'{song['title']}' is in it.",
            "music_playlist_songs",
            "added",
            values={"playlist_id": new_id, "song_id": song["id"]},
        )
        for song in songs
    ]
