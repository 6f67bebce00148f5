"""Scenarios of difficulty 3: several apps, a condition to check for each case, and care about what not to touch."""

from __future__ import annotations

from collections import Counter

from rlpost.envs.errands.evaluation import Expected
from rlpost.envs.errands.scenarios.base import (
    DONE,
    PAGES,
    Plan,
    look,
    playlist,
    requested,
    scenario,
    sent,
    sign_in,
    texted,
)
from rlpost.envs.errands.seed import PURPOSES, Seed


def _note(title: str) -> str:
    return (
        f'note = apis.notes.search_notes(access_token=notes_token, query="{title}")[0]\n'
        'note = apis.notes.show_note(access_token=notes_token, note_id=note["note_id"])\nprint(note["content"])'
    )


@scenario(3)
def split_bill(seed: Seed) -> Plan:
    """Share a bill that stands in a note among the people of one relationship."""
    kind = seed.draw.choice(sorted({person.relationships[0] for person in seed.people}))
    people = [person for person in seed.people if kind in person.relationships]
    share, purpose = seed.amount(4, 30), seed.draw.choice(PURPOSES)
    title = f"Bill for {purpose}"
    content = f"total: ${share * (len(people) + 1)}\npaid by me"
    seed.state.insert("notes_notes", title=title, content=content, updated_at=seed.before(1))
    ask = seed.word(
        "The total in my note '{0}' is to be shared equally by me and all contacts who are my {1}s. Request each "
        "one's share on wallet, with the note '{2}'.",
        "I paid what stands in my note '{0}'. Split it evenly between me and everybody who is a {1} of mine in my "
        "contacts, and request their shares on wallet; note: '{2}'.",
    )
    find = (
        f"{_note(title)}\n{PAGES}"
        f'people = all_pages(apis.phone.search_contacts, access_token=phone_token, relationship="{kind}")\n'
        "print(people)"
    )
    request = (
        'total = float(note["content"].split("$")[1].split()[0])\nshare = round(total / (len(people) + 1), 2)\n'
        "for person in people:\n    apis.wallet.create_payment_request(access_token=wallet_token, "
        f'user_email=person["email"], amount=share, note="{purpose}")\n{DONE}'
    )
    turns = [look("phone", "search_contacts"), sign_in("phone", "wallet", "notes"), find, request]
    return Plan(ask.format(title, kind, purpose), turns, [requested(person, share, purpose) for person in people])


@scenario(3)
def remind_debtors(seed: Seed) -> Plan:
    """Text those in a note who have not paid yet."""
    people, purpose = seed.draw.sample(seed.people, 4), seed.draw.choice(PURPOSES)
    owed = [(person, seed.amount(91, 99)) for person in people]  # no other transaction is as large
    title = f"Shares of {purpose}"
    content = "\n".join(f"{person.name}: ${amount}" for person, amount in owed)
    seed.state.insert("notes_notes", title=title, content=content, updated_at=seed.before(20))
    for person, amount in owed[:2]:
        row = {"email": person.email, "direction": "received", "amount": float(amount), "note": purpose}
        seed.state.insert("wallet_transactions", created_at=seed.before(seed.draw.randrange(1, 15)), **row)
    message = f"Please remember your share of {purpose}."
    ask = seed.word(
        "My note '{0}' says what people owe me. Whoever has not sent me exactly that sum on wallet yet is to get this "
        "text message: {1}",
        "Check my note '{0}' against the money I received on wallet, and text everybody whose sum has not come: {1}",
    )
    find = (
        f"{_note(title)}\n{PAGES}"
        'received = all_pages(apis.wallet.show_transactions, access_token=wallet_token, direction="received")\n'
        'paid = {(row["email"], row["amount"]) for row in received}'
    )
    remind = (
        'for line in note["content"].splitlines():\n    name, amount = line.split(": $")\n'
        "    person = apis.phone.search_contacts(access_token=phone_token, query=name)[0]\n"
        '    if (person["email"], float(amount)) not in paid:\n'
        "        apis.phone.send_text_message(access_token=phone_token, "
        f'phone_number=person["phone_number"], message="{message}")\n{DONE}'
    )
    turns = [look("phone", "send_text_message"), sign_in("phone", "wallet", "notes"), find, remind]
    return Plan(ask.format(title, message), turns, [texted(person, message) for person, _ in owed[2:]])


@scenario(3)
def return_duplicates(seed: Seed) -> Plan:
    """Send back what somebody paid twice."""
    people = seed.draw.sample(seed.people, 3)
    expected = []
    for person, twice in zip(people, (True, True, False), strict=True):
        amount, purpose = seed.amount(100, 140), seed.draw.choice(PURPOSES)
        for _ in range(1 + twice):
            row = {"email": person.email, "direction": "received", "amount": float(amount), "note": purpose}
            seed.state.insert("wallet_transactions", created_at=seed.before(seed.draw.randrange(1, 9)), **row)
        if twice:
            expected.append(sent(person, amount, "returned"))
    ask = seed.word(
        "Some people sent me the same sum with the same note twice on wallet. Send each of them one of the two back, "
        "with the note '{}'.",
        "Find money that came twice on wallet (same sender, sum and note) and return it once; the note is '{}'.",
    )
    find = (
        f"{PAGES}from collections import Counter\n"
        'rows = all_pages(apis.wallet.show_transactions, access_token=wallet_token, direction="received")\n'
        'times = Counter((row["email"], row["amount"], row["note"]) for row in rows)\n'
        "twice = [key for key, count in times.items() if count == 2]\nprint(twice)"
    )
    back = (
        "for email, amount, _ in twice:\n    apis.wallet.send_money(access_token=wallet_token, receiver_email=email, "
        f'amount=amount, note="returned")\n{DONE}'
    )
    return Plan(ask.format("returned"), [look("wallet"), sign_in("wallet"), find, back], expected)


@scenario(3)
def favourite_artist_playlist(seed: Seed) -> Plan:
    """Find the artist most liked, and fill a playlist with all their songs."""
    liked = {row["song_id"] for row in seed.state.rows("SELECT song_id FROM music_likes")}
    songs = seed.state.rows("SELECT * FROM music_songs")
    counts = Counter(song["artist"] for song in songs if song["id"] in liked)
    artist = max(counts, key=lambda name: (counts[name], name))
    for song in songs:  # no tie at the top
        if counts[artist] > max((n for name, n in counts.items() if name != artist), default=0):
            break
        if song["artist"] == artist and song["id"] not in liked:
            seed.state.insert("music_likes", song_id=song["id"])
            counts[artist] += 1
        elif song["artist"] != artist and song["id"] in liked and counts[song["artist"]] == counts[artist]:
            seed.state.db.execute("DELETE FROM music_likes WHERE song_id = ?", (song["id"],))
            counts[song["artist"]] -= 1
    title = f"Best of {seed.draw.randint(100, 999)}"
    ask = seed.word(
        "Make a playlist '{}' on music with every song there is by the artist that most of my liked songs are by.",
        "On music, put all songs of my favourite artist (the one with most of my likes) into a new playlist '{}'.",
    )
    find = (
        f"{PAGES}from collections import Counter\n"
        "liked = all_pages(apis.music.show_liked_songs, access_token=music_token)\n"
        'artist = Counter(song["artist"] for song in liked).most_common(1)[0][0]\nprint(artist)'
    )
    make = (
        f'made = apis.music.create_playlist(access_token=music_token, title="{title}")\n'
        "for song in all_pages(apis.music.search_songs, artist=artist):\n"
        '    apis.music.add_song_to_playlist(access_token=music_token, playlist_id=made["playlist_id"], '
        f'song_id=song["song_id"])\n{DONE}'
    )
    expected = playlist(seed, title, (song for song in songs if song["artist"] == artist))
    return Plan(ask.format(title), [look("music"), sign_in("music"), find, make], expected)


@scenario(3)
def update_numbers(seed: Seed) -> Plan:
    """Bring phone numbers in the contacts up to date with a note, where they differ."""
    people = seed.draw.sample(seed.people, 4)
    title, expected, lines = "New phone numbers", [], []
    for person, differs in zip(people, (True, False, True, False), strict=True):
        number = "".join(seed.draw.choices("0123456789", k=10)) if differs else person.phone_number
        lines.append(f"{person.name}: {number}")
        if differs:
            (row,) = seed.state.rows("SELECT id FROM phone_contacts WHERE email = ?", person.email)
            words = f"{person.name} has the new number."
            expected.append(Expected(words, "phone_contacts", "updated", row["id"], {"phone_number": number}))
    seed.state.insert("notes_notes", title=title, content="\n".join(lines), updated_at=seed.before(1))
    ask = seed.word(
        "Some phone numbers in my contacts are out of date; my note '{}' has the right ones. Update my contacts.",
        "Update the phone numbers of my contacts to those in my note '{}'.",
    )
    change = (
        'for line in note["content"].splitlines():\n    name, number = line.split(": ")\n'
        "    person = apis.phone.search_contacts(access_token=phone_token, query=name)[0]\n"
        '    if person["phone_number"] != number:\n'
        "        apis.phone.update_contact(access_token=phone_token, "
        f'contact_id=person["contact_id"], phone_number=number)\n{DONE}'
    )
    turns = [look("phone", "update_contact"), sign_in("phone", "notes"), _note(title), change]
    return Plan(ask.format(title), turns, expected)
