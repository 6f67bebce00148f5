"""The compact flavour of the errands world: the same apps, APIs and tests behind commands of a few bytes.

    c NAME      a contact          "EMAIL PHONE"      s TITLE    a song       its id
    p EMAIL N   send $N            "ok"               l ID       like it      "ok"
    m PHONE W   text the word W    "ok"               n TITLE    a note       its content
    r NAME      a pending request  its id             a ID       approve it   "ok"
    d [ANSWER]  the task is done

What is not there is "-", what an app refuses "no", and anything else "?". Names are three letters, so that a byte-level
model of a million parameters learns the world in a minute. Left out: signing in, and everything the commands do not
reach.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from rlpost.envs.errands import registry
from rlpost.envs.errands.apps import APPS
from rlpost.envs.errands.evaluation import Expected, Verdict, difference, judge
from rlpost.envs.errands.scenarios.base import sent, texted
from rlpost.envs.errands.seed import add_contact
from rlpost.envs.errands.state import ApiError, Person, State

MAX_TURNS = 6
VARIANTS = 3
LETTERS = "bfghjkqvwxyz"  # none that is a command: what is copied has one place to come from
NAMES = ["".join(letters) for letters in permutations(LETTERS, 3)]
random.Random("mini-errands-names").shuffle(NAMES)
POOLS = {"eval": NAMES[:420], "check": NAMES[420:520], "train": NAMES[520:]}
"""Names by split; they share none."""
EMAILS = ["".join(letters) for letters in permutations("ABCDEFGHIJ", 2)]
PHONES = ["".join(letters) for letters in permutations("KLMNOPQRST", 2)]
CONTENTS = ["".join(letters) for letters in permutations("UVWXYZ", 3)]
WORDS = ("hi", "ok", "yes", "now")

_SHAPES = {
    "c": re.compile(r"c ([a-z]{1,9})"),
    "p": re.compile(r"p ([A-Za-z]{1,9}) ([0-9]{1,4})"),
    "m": re.compile(r"m ([A-Za-z]{1,9}) ([a-z]{1,9})"),
    "r": re.compile(r"r ([a-z]{1,9})"),
    "a": re.compile(r"a ([0-9]{1,4})"),
    "s": re.compile(r"s ([a-z]{1,9})"),
    "l": re.compile(r"l ([0-9]{1,4})"),
    "n": re.compile(r"n ([a-z]{1,9})"),
    "d": re.compile(r"d(?: ([A-Za-z0-9]{1,9}))?"),
}


@dataclass(frozen=True, slots=True)
class MiniTask:
    """One task: its words, its world, and what it is judged by."""

    instruction: str
    difficulty: int
    state: State
    expected: Sequence[Expected]
    solution: Sequence[str]
    """Commands; ``{0}`` and ``{1}`` are the first and second word of the last answer."""
    answer: Any = None


class MiniWorld:
    """One episode's world."""

    def __init__(self, task: MiniTask) -> None:
        self.task, self._state = task, task.state
        self._before = task.state.snapshot()
        self.refused = 0

    @property
    def completed(self) -> bool:
        """Whether the task was marked as complete."""
        return self._state.status is not None

    def act(self, text: str) -> str:
        """Do what a command says, and answer."""
        shape = _SHAPES.get(text[:1])
        match = shape.fullmatch(text) if shape else None
        try:
            if match:
                return self._do(text[0], *match.groups())
            answer = "?"
        except ApiError:
            answer = "no"
        self.refused += 1
        return answer

    def evaluate(self) -> Verdict:
        """The tests, on the world as it is now."""
        changes = difference(self._before, self._state.snapshot())
        task, answer = self.task, self._state.answer
        return judge(task.difficulty, task.expected, changes, task.answer, answer, self.completed)

    def close(self) -> None:
        """Drop the database."""
        self._state.db.close()

    def _api(self, app: str, api: str, **arguments: Any) -> Any:
        return registry.call(APPS, self._state, app, api, arguments)

    def _do(self, command: str, *words: Any) -> str:
        if command == "c":
            found = self._api("phone", "search_contacts", query=words[0])
            return f"{found[0]['email']} {found[0]['phone_number']}" if found else "-"
        if command == "s":
            found = self._api("music", "search_songs", query=words[0])
            return str(found[0]["song_id"]) if found else "-"
        if command == "n":
            found = self._api("notes", "search_notes", query=words[0])
            shown = found and self._api("notes", "show_note", note_id=found[0]["note_id"])
            return str(shown["content"]) if shown else "-"
        if command == "r":
            return self._request_from(words[0])
        acts: dict[str, Callable[[], Any]] = {
            "p": lambda: self._api("wallet", "send_money", receiver_email=words[0], amount=words[1]),
            "m": lambda: self._api("phone", "send_text_message", phone_number=words[0], message=words[1]),
            "a": lambda: self._api("wallet", "approve_payment_request", payment_request_id=words[0]),
            "l": lambda: self._api("music", "like_song", song_id=words[0]),
            "d": lambda: self._api("supervisor", "complete_task", answer=words[0]),
        }
        acts[command]()
        return "ok"

    def _request_from(self, name: str) -> str:
        emails = {contact["email"] for contact in self._api("phone", "search_contacts", query=name)}
        rows = self._api("wallet", "show_payment_requests", direction="received", status="pending")
        return next((str(row["payment_request_id"]) for row in rows if row["email"] in emails), "-")


def _people(draw: random.Random, pool: Sequence[str]) -> list[Person]:
    found = zip(draw.sample(pool, 3), draw.sample(EMAILS, 3), draw.sample(PHONES, 3), strict=True)
    return [Person(name, "", email, phone) for name, email, phone in found]


def _start(draw: random.Random, pool: Sequence[str]) -> tuple[State, list[Person]]:
    people = _people(draw, pool)
    state = State(Person("me", "", "ME", "11"), "2023-05-18T12:00:00", signed_in=True)
    for person in people:
        add_contact(state, person)
    return state, people


def pay(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Pay somebody."""
    state, (person, *_) = _start(draw, pool)
    amount = draw.randint(2, 9)
    steps = (f"c {person.first_name}", f"p {{0}} {amount}", "d")
    return MiniTask(f"pay {person.first_name} {amount}", 2, state, [sent(person, amount)], steps)


def tell(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Text somebody."""
    state, (person, *_) = _start(draw, pool)
    word = draw.choice(WORDS)
    steps = (f"c {person.first_name}", f"m {{1}} {word}", "d")
    return MiniTask(f"tell {person.first_name} {word}", 2, state, [texted(person, word)], steps)


def like(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Like a song."""
    state, _ = _start(draw, pool)
    for title in draw.sample(pool, draw.randint(1, 4)):
        state.insert("music_songs", title=f"{title}{draw.choice(LETTERS)}", artist="", genre="")
    title = draw.choice(pool)
    song = state.insert("music_songs", title=title, artist="", genre="", id=draw.randint(12, 99))
    expected = Expected("It is liked.", "music_likes", "added", values={"song_id": song})
    return MiniTask(f"like {title}", 1, state, [expected], (f"s {title}", "l {0}", "d"))


def read(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Say what stands in a note."""
    state, _ = _start(draw, pool)
    title, content = draw.choice(pool), draw.choice(CONTENTS)
    state.insert("notes_notes", title=title, content=content)
    return MiniTask(f"read {title}", 1, state, [], (f"n {title}", "d {0}"), content)


def owed(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Approve the one request that comes from somebody."""
    state, (person, other, _) = _start(draw, pool)
    people = draw.sample((person, other), 2)
    expected = []
    for who, number in zip(people, draw.sample(range(12, 100), 2), strict=True):
        amount = draw.randint(2, 9)
        row = {"email": who.email, "direction": "received", "amount": float(amount), "note": "", "status": "pending"}
        made = state.insert("wallet_requests", id=number, created_at=state.now, **row)
        if who is person:
            expected = [
                Expected("It is approved.", "wallet_requests", "updated", made, {"status": "approved"}),
                sent(person, amount),
            ]
    steps = (f"r {person.first_name}", "a {0}", "d")
    return MiniTask(f"owed {person.first_name}", 1, state, expected, steps)


def debt(draw: random.Random, pool: Sequence[str]) -> MiniTask:
    """Pay somebody what a note says."""
    state, (person, *_) = _start(draw, pool)
    amount = draw.randint(2, 9)
    state.insert("notes_notes", title=person.first_name, content=str(amount))
    steps = (f"n {person.first_name}", f"c {person.first_name}", f"p {{0}} {amount}", "d")
    return MiniTask(f"debt {person.first_name}", 3, state, [sent(person, amount)], steps)


KINDS: dict[str, Callable[[random.Random, Sequence[str]], MiniTask]] = {
    kind.__name__: kind for kind in (pay, tell, like, read, owed, debt)
}


def build(kind: str, use: int, variant: int, split: str) -> MiniTask:
    """The task of an id; the same whenever it is built."""
    return KINDS[kind](random.Random(f"mini {kind} {use} {variant} {split}"), POOLS[split])
