"""Scenarios of difficulty 1: one or two apps, a look-up and an act. Left out: the harder ones."""

from __future__ import annotations

from rlpost.envs.errands.evaluation import Expected
from rlpost.envs.errands.scenarios.base import DONE, PAGES, Plan, look, scenario, sent, sign_in, texted
from rlpost.envs.errands.seed import LINES, PURPOSES, Seed


@scenario(1)
def pay_contact(seed: Seed) -> Plan:
    """Send a sum to one contact."""
    person, amount, note = seed.person(), seed.amount(), seed.draw.choice(PURPOSES)
    ask = seed.word("Send ${} to {} on wallet, with the note '{}'.", "Pay ${} to {} in wallet; the note is '{}'.")
    find = f'person = apis.phone.search_contacts(access_token=phone_token, query="{person.name}")[0]\nprint(person)'
    pay = (
        f'apis.wallet.send_money(access_token=wallet_token, receiver_email=person["email"], amount={amount}, '
        f'note="{note}")'
    )
    turns = [look("wallet", "send_money"), sign_in("phone", "wallet"), find, f"{pay}\n{DONE}"]
    return Plan(ask.format(amount, person.name, note), turns, [sent(person, amount, note)])


@scenario(1)
def count_liked(seed: Seed) -> Plan:
    """Count the liked songs of an artist."""
    rows = seed.state.rows(
        "SELECT artist FROM music_songs JOIN music_likes ON music_songs.id = music_likes.song_id "
        "ORDER BY music_likes.id"
    )
    artist = seed.draw.choice(rows)["artist"]
    count = sum(row["artist"] == artist for row in rows)
    ask = seed.word(
        "How many songs by {} do I like on music?", "Of the songs that I like on music, how many are by {}?"
    )
    counted = (
        f"{PAGES}liked = all_pages(apis.music.show_liked_songs, access_token=music_token)\n"
        f'count = sum(song["artist"] == "{artist}" for song in liked)\nprint(count)'
    )
    turns = [look("music"), sign_in("music"), counted, "apis.supervisor.complete_task(answer=count)"]
    return Plan(ask.format(artist), turns, answer=count)


@scenario(1)
def like_by_title(seed: Seed) -> Plan:
    """Like one song."""
    liked = {row["song_id"] for row in seed.state.rows("SELECT song_id FROM music_likes")}
    song_id = seed.draw.choice([song for song in seed.songs if song not in liked])
    title = seed.state.row("music_songs", song_id, "song")["title"]
    ask = seed.word("Like the song '{}' on music.", "Mark '{}' as a song that I like, on music.")
    find = f'song = apis.music.search_songs(query="{title}")[0]\nprint(song)'
    like = f'apis.music.like_song(access_token=music_token, song_id=song["song_id"])\n{DONE}'
    expected = Expected(f"'{title}' is liked.", "music_likes", "added", values={"song_id": song_id})
    return Plan(ask.format(title), [look("music", "like_song"), sign_in("music"), find, like], [expected])


@scenario(1)
def add_line(seed: Seed) -> Plan:
    """Add a line at the end of a note."""
    note = seed.draw.choice(seed.state.rows("SELECT * FROM notes_notes"))
    line = seed.draw.choice([line for line in LINES if line not in note["content"]])
    ask = seed.word("Add the line '{}' at the end of my note '{}'.", "Put '{}' as a new last line into my note '{}'.")
    find = (
        f'found = apis.notes.search_notes(access_token=notes_token, query="{note["title"]}")\n'
        f'note = next(row for row in found if row["title"] == "{note["title"]}")\n'
        'note = apis.notes.show_note(access_token=notes_token, note_id=note["note_id"])\nprint(note)'
    )
    write = (
        f'apis.notes.update_note(access_token=notes_token, note_id=note["note_id"], '
        f'content=note["content"] + "\\n{line}")\n{DONE}'
    )
    content = f"{note['content']}\n{line}"
    expected = Expected(
        "The line is added.", "notes_notes", "updated", note["id"], {"content": lambda text: text.strip() == content}
    )
    turns = [look("notes", "update_note"), sign_in("notes"), find, write]
    return Plan(ask.format(line, note["title"]), turns, [expected])


@scenario(1)
def text_contact(seed: Seed) -> Plan:
    """Text one contact."""
    person, message = seed.person(), f"{seed.draw.choice(LINES).capitalize()}, please."
    ask = seed.word("Text {} this message: {}", "Send {} a text message that says: {}")
    find = f'person = apis.phone.search_contacts(access_token=phone_token, query="{person.name}")[0]\nprint(person)'
    text = (
        'apis.phone.send_text_message(access_token=phone_token, phone_number=person["phone_number"], '
        f'message="{message}")\n{DONE}'
    )
    turns = [look("phone", "send_text_message"), sign_in("phone"), find, text]
    return Plan(ask.format(person.name, message), turns, [texted(person, message)])


@scenario(1)
def delete_playlist(seed: Seed) -> Plan:
    """Remove a playlist."""
    playlist = seed.draw.choice(seed.state.rows("SELECT * FROM music_playlists"))
    entries = seed.state.rows("SELECT id FROM music_playlist_songs WHERE playlist_id = ?", playlist["id"])
    ask = seed.word("Delete my playlist '{}' on music.", "I no longer want my playlist '{}' on music; remove it.")
    find = (
        f"{PAGES}playlists = all_pages(apis.music.show_playlists, access_token=music_token)\n"
        f'playlist = next(row for row in playlists if row["title"] == "{playlist["title"]}")\nprint(playlist)'
    )
    remove = f'apis.music.delete_playlist(access_token=music_token, playlist_id=playlist["playlist_id"])\n{DONE}'
    expected = [Expected("The playlist is gone.", "music_playlists", "removed", playlist["id"])]
    expected += [Expected("Its list is gone.", "music_playlist_songs", "removed", entry["id"]) for entry in entries]
    turns = [look("music", "delete_playlist"), sign_in("music"), find, remove]
    return Plan(ask.format(playlist["title"]), turns, expected)
