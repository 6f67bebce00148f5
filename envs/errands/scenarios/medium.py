"""Scenarios of difficulty 2: lists to go through, or facts in one app that decide what to do in another."""

from __future__ import annotations

from rlpost.envs.errands.evaluation import Expected
from rlpost.envs.errands.scenarios.base import DONE, PAGES, Plan, look, playlist, requested, scenario, sent, sign_in
from rlpost.envs.errands.seed import GENRES, PURPOSES, Seed


@scenario(2)
def approve_from(seed: Seed) -> Plan:
    """Approve the pending requests of one person, and no other's."""
    person = seed.person()
    other = seed.person(person)
    expected = []
    for who, purpose in zip((person, other, person), seed.draw.sample(PURPOSES, 3), strict=True):
        amount = float(seed.amount(5, 60))
        row = {"email": who.email, "direction": "received", "amount": amount, "note": purpose}
        made = seed.state.insert(
            "wallet_requests", status="pending", created_at=seed.before(seed.draw.randrange(9)), **row
        )
        if who is person:
            change = Expected("A request is approved.", "wallet_requests", "updated", made, {"status": "approved"})
            expected += [change, sent(person, amount, purpose)]
    ask = seed.word(
        "Approve all pending payment requests from {} on wallet.", "{} is waiting for money: approve their requests."
    )
    find = (
        f'person = apis.phone.search_contacts(access_token=phone_token, query="{person.name}")[0]\n'
        f"{PAGES}requests = all_pages(apis.wallet.show_payment_requests, access_token=wallet_token, "
        'direction="received", status="pending")\nprint(requests)'
    )
    approve = (
        'for row in requests:\n    if row["email"] == person["email"]:\n'
        "        apis.wallet.approve_payment_request(access_token=wallet_token, "
        f'payment_request_id=row["payment_request_id"])\n{DONE}'
    )
    turns = [look("wallet"), sign_in("phone", "wallet"), find, approve]
    return Plan(ask.format(person.name), turns, expected)


@scenario(2)
def playlist_of_genre(seed: Seed) -> Plan:
    """Make a playlist of the liked songs of a genre."""
    songs = seed.state.rows(
        "SELECT music_songs.* FROM music_songs JOIN music_likes ON music_songs.id = music_likes.song_id "
        "ORDER BY music_likes.id"
    )
    genre = seed.draw.choice([genre for genre in GENRES if any(song["genre"] == genre for song in songs)])
    title = f"My {genre} {seed.draw.randint(10, 99)}"
    ask = seed.word(
        "Make a playlist '{}' on music with all songs that I like and whose genre is {}.",
        "I want a new playlist, '{}', on music: of the songs I like, every one of the genre {}.",
    )
    find = f"{PAGES}liked = all_pages(apis.music.show_liked_songs, access_token=music_token)\nprint(len(liked))"
    make = (
        f'made = apis.music.create_playlist(access_token=music_token, title="{title}")\nfor song in liked:\n'
        f'    if song["genre"] == "{genre}":\n'
        '        apis.music.add_song_to_playlist(access_token=music_token, playlist_id=made["playlist_id"], '
        f'song_id=song["song_id"])\n{DONE}'
    )
    expected = playlist(seed, title, (song for song in songs if song["genre"] == genre))
    return Plan(ask.format(title, genre), [look("music"), sign_in("music"), find, make], expected)


@scenario(2)
def total_sent(seed: Seed) -> Plan:
    """Add up what was sent to one person."""
    person = seed.person()
    for _ in range(2):
        row = {"email": person.email, "direction": "sent", "amount": float(seed.amount(3, 40)), "note": "coffee"}
        seed.state.insert("wallet_transactions", created_at=seed.before(seed.draw.randrange(1, 60)), **row)
    rows = seed.state.rows("SELECT amount FROM wallet_transactions WHERE direction='sent' AND email=?", person.email)
    ask = seed.word(
        "How much money, in dollars, have I sent to {} on wallet in total?",
        "What do all my wallet payments to {} come to, in dollars?",
    )
    add = (
        f'person = apis.phone.search_contacts(access_token=phone_token, query="{person.name}")[0]\n'
        f"{PAGES}rows = all_pages(apis.wallet.show_transactions, access_token=wallet_token, "
        'direction="sent", email=person["email"])\ntotal = sum(row["amount"] for row in rows)\nprint(total)'
    )
    answer = "apis.supervisor.complete_task(answer=total)"
    turns = [look("wallet"), sign_in("phone", "wallet"), add, answer]
    return Plan(ask.format(person.name), turns, answer=sum(row["amount"] for row in rows))


@scenario(2)
def request_from_note(seed: Seed) -> Plan:
    """Request from everybody in a note what they owe."""
    people, purpose = seed.draw.sample(seed.people, 3), seed.draw.choice(PURPOSES)
    owed = [(person, seed.amount(4, 50)) for person in people]
    title = f"Who owes me for {purpose}"
    content = "\n".join(f"{person.name}: ${amount}" for person, amount in owed)
    seed.state.insert("notes_notes", title=title, content=content, updated_at=seed.before(2))
    ask = seed.word(
        "My note '{0}' lists debts. Request each sum on wallet, with the note '{1}'.",
        "On wallet, request from everybody in my note '{0}' what they owe me; the requests' note is '{1}'.",
    )
    find = (
        f'note = apis.notes.search_notes(access_token=notes_token, query="{title}")[0]\n'
        'note = apis.notes.show_note(access_token=notes_token, note_id=note["note_id"])\nprint(note["content"])'
    )
    request = (
        'for line in note["content"].splitlines():\n    name, amount = line.split(": $")\n'
        "    person = apis.phone.search_contacts(access_token=phone_token, query=name)[0]\n"
        '    apis.wallet.create_payment_request(access_token=wallet_token, user_email=person["email"], '
        f'amount=float(amount), note="{purpose}")\n{DONE}'
    )
    turns = [look("wallet", "create_payment_request"), sign_in("phone", "wallet", "notes"), find, request]
    return Plan(ask.format(title, purpose), turns, [requested(person, amount, purpose) for person, amount in owed])


@scenario(2)
def unlike_before(seed: Seed) -> Plan:
    """Unlike the songs released before a year."""
    rows = seed.state.rows(
        "SELECT music_likes.id, release_year FROM music_songs JOIN music_likes "
        "ON music_songs.id = music_likes.song_id ORDER BY release_year"
    )
    year = max(rows[3]["release_year"], rows[0]["release_year"] + 1)
    ask = seed.word(
        "On music, unlike all songs that were released before {}.",
        "I no longer like songs from before {}: unlike them on music.",
    )
    find = f"{PAGES}liked = all_pages(apis.music.show_liked_songs, access_token=music_token)\nprint(len(liked))"
    unlike = (
        f'for song in liked:\n    if song["release_year"] < {year}:\n'
        f'        apis.music.unlike_song(access_token=music_token, song_id=song["song_id"])\n{DONE}'
    )
    expected = [
        Expected("A song from before that year is unliked.", "music_likes", "removed", row["id"])
        for row in rows
        if row["release_year"] < year
    ]
    return Plan(ask.format(year), [look("music", "unlike_song"), sign_in("music"), find, unlike], expected)
