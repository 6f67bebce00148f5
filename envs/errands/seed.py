"""Filling a world before its task is set: people, messages, money, songs and notes, all drawn from one seed.

Left out: what a scenario adds of its own (scenarios/).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rlpost.envs.errands.state import Person, State

FIRST = (
    "Ada", "Amir", "Bela", "Carla", "Dario", "Edda", "Femi", "Gita", "Hugo", "Ines", "Jonas", "Kira", "Luca",
    "Mara", "Nico", "Olga", "Pavel", "Rosa", "Sven", "Tara", "Umar", "Vera", "Wanda", "Yara", "Zeno", "Bruno",
    "Clara", "Dunja", "Emil", "Freya", "Goran", "Hanna",
)  # fmt: skip
LAST = (
    "Abel", "Brandt", "Costa", "Dahl", "Eriks", "Farago", "Gruber", "Haddad", "Ivanov", "Jansen", "Keller", "Lindt",
    "Moreau", "Novak", "Okoye", "Petit", "Quist", "Rossi", "Silva", "Tanaka", "Ueda", "Vogel", "Weber", "Young",
)  # fmt: skip
RELATIONSHIPS = ("friend", "roommate", "coworker", "sibling", "neighbor")
ARTISTS = ("Blue Lantern", "Cora Vale", "Night Ferry", "Paper Kites", "Silver Oak", "The Moths")
GENRES = ("rock", "jazz", "pop", "folk", "electronic")
ADJECTIVES = [
    "Amber",
    "Broken",
    "Calm",
    "Distant",
    "Electric",
    "Frozen",
    "Golden",
    "Hidden",
    "Iron",
    "Little",
    "Midnight",
    "Quiet",
    "Red",
    "Secret",
    "Wild",
]
NOUNS = (
    "Bridge", "City", "Dream", "Fire", "Garden", "Harbor", "Island", "Mirror", "Ocean", "River", "Road", "Shadow",
    "Stone", "Summer", "Window",
)  # fmt: skip
TITLES = (
    "Books to read", "Gym plan", "House rules", "Packing list", "Recipe ideas", "Quotes", "Work goals", "Bike repair",
    "Film list", "Plants",
)  # fmt: skip
LINES = (
    "start early", "ask for a discount", "call ahead", "bring the blue bag", "ten minutes a day", "buy spare parts",
    "check the size", "two cups of rice", "the one from the market", "not on Sundays",
)  # fmt: skip
PURPOSES = ("lunch", "groceries", "tickets", "taxi", "rent", "coffee", "gift", "books", "internet", "snacks")
APPS_WITH_LOGIN = ("phone", "wallet", "music", "notes")


@dataclass(slots=True)
class Seed:
    """A world being filled, and what a scenario needs to know of it.

    Attributes:
        state: the world.
        draw: every random choice.
        phrase: a number that all variants of one scenario share, to word the instruction by.
        people: the supervisor's contacts, each also a wallet user.
        songs: ids of all songs, in the order of their titles.
    """

    state: State
    draw: random.Random
    phrase: int = 0
    people: list[Person] = field(default_factory=list)
    songs: list[int] = field(default_factory=list)

    def word(self, *forms: str) -> str:
        """One of several ways to say it, the same for all variants of a scenario."""
        return forms[self.phrase % len(forms)]

    def person(self, *without: Person) -> Person:
        """One of the contacts."""
        return self.draw.choice([person for person in self.people if person not in without])

    def amount(self, low: int = 5, high: int = 90) -> int:
        """A sum of money, in whole dollars."""
        return self.draw.randint(low, high)

    def before(self, days: int) -> str:
        """A moment so many days before now."""
        moment = datetime.fromisoformat(self.state.now) - timedelta(days=days, minutes=self.draw.randrange(600))
        return moment.isoformat()


def fill(draw: random.Random, phrase: int) -> Seed:
    """A new world with everything that every task finds in it."""
    first, last = draw.sample(FIRST, 10), draw.sample(LAST, 10)
    people = [_person(draw, *names) for names in zip(first, last, strict=True)]
    now = datetime(2023, draw.randint(1, 12), draw.randint(1, 28), 12, 0, 0).isoformat()
    passwords = {app: "".join(draw.choices("abcdefghkmnpqrstuvwxyz23456789", k=8)) for app in APPS_WITH_LOGIN}
    state = State(Person(people[0].first_name, people[0].last_name, people[0].email, people[0].phone_number), now)
    state.passwords = passwords
    own = random.Random(f"errands supervisor {people[0].email} {now}")  # the tasks' draws stay what they are
    state.birthday = f"{own.randint(1955, 2003)}-{own.randint(1, 12):02d}-{own.randint(1, 28):02d}"
    state.sex = own.choice(("female", "male"))
    seed = Seed(state, draw, phrase, people[1:])
    _phone(seed)
    _wallet(seed)
    _music(seed)
    _notes(seed)
    return seed


def _person(draw: random.Random, first: str, last: str) -> Person:
    number = "".join(draw.choices("0123456789", k=10))
    email = f"{first.lower()}.{last.lower()}@mail.example"
    return Person(first, last, email, number, (draw.choice(RELATIONSHIPS),))


def add_contact(state: State, person: Person) -> int:
    """Put somebody into the phone's contacts; the row's id."""
    return state.insert(
        "phone_contacts",
        first_name=person.first_name,
        last_name=person.last_name,
        email=person.email,
        phone_number=person.phone_number,
        relationships=",".join(person.relationships),
    )


def _phone(seed: Seed) -> None:
    for person in seed.people:
        add_contact(seed.state, person)
    for _ in range(8):
        direction = seed.draw.choice(("sent", "received"))
        text = f"About the {seed.draw.choice(PURPOSES)}: {seed.draw.choice(LINES)}."
        number = seed.person().phone_number
        moment = seed.before(seed.draw.randrange(40))
        seed.state.insert("phone_messages", phone_number=number, direction=direction, message=text, sent_at=moment)


def _wallet(seed: Seed) -> None:
    for table, count in (("wallet_transactions", 10), ("wallet_requests", 4)):
        for _ in range(count):
            values = {
                "email": seed.person().email,
                "direction": seed.draw.choice(("sent", "received")),
                "amount": float(seed.amount()),
                "note": seed.draw.choice(PURPOSES),
                "created_at": seed.before(seed.draw.randrange(1, 90)),
            }
            if table == "wallet_requests":
                values["status"] = seed.draw.choice(("approved", "denied"))
            seed.state.insert(table, **values)


def _music(seed: Seed) -> None:
    pairs = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    for title in sorted(seed.draw.sample(pairs, 24)):
        song = {
            "title": title,
            "artist": seed.draw.choice(ARTISTS),
            "genre": seed.draw.choice(GENRES),
            "duration": seed.draw.randrange(120, 420, 5),
            "release_year": seed.draw.randint(1990, 2023),
        }
        seed.songs.append(seed.state.insert("music_songs", **song))
    for song_id in seed.draw.sample(seed.songs, 12):
        seed.state.insert("music_likes", song_id=song_id)
    for title in seed.draw.sample(("Morning", "Run", "Focus", "Party", "Rain", "Road trip"), 3):
        playlist = seed.state.insert("music_playlists", title=title)
        for song_id in seed.draw.sample(seed.songs, 5):
            seed.state.insert("music_playlist_songs", playlist_id=playlist, song_id=song_id)


def _notes(seed: Seed) -> None:
    for title in seed.draw.sample(TITLES, 6):
        content = "\n".join(seed.draw.sample(LINES, 3))
        seed.state.insert("notes_notes", title=title, content=content, updated_at=seed.before(30))
