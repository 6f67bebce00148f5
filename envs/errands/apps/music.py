"""The music app: a library of songs, the ones you like, and playlists. Left out: albums, a player, reviews."""

from __future__ import annotations

from typing import Annotated

from rlpost.envs.errands.apps.common import PageIndex, PageLimit, add_login, matches, page
from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import ApiError, Json, Row, State

music = App("music", "An app to find songs, to like them and to keep playlists.")
add_login(music)
SONG = {
    "song_id": 1,
    "title": "string",
    "artist": "string",
    "genre": "string",
    "duration": 180,
    "release_year": 2020,
}
PLAYLIST = {"playlist_id": 1, "title": "string", "song_ids": [1]}
DONE = {"message": "string"}


def _song(row: Row) -> Row:
    return {"song_id": row.pop("id"), **row}


@music.api("GET", "/songs", [SONG], private=False)
def search_songs(
    state: State,
    query: Annotated[str, "Words in the song's title."] = "",
    artist: Annotated[str | None, "Only songs of this artist."] = None,
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Search all songs there are; duration is in seconds."""
    rows = state.rows("SELECT * FROM music_songs ORDER BY title, id")
    kept = [row for row in rows if matches(query, row["title"]) and artist in (None, row["artist"])]
    return page([_song(row) for row in kept], page_index, page_limit)


@music.api("GET", "/songs/{song_id}", SONG, private=False)
def show_song(state: State, song_id: int) -> Json:
    """Show a song; its duration is in seconds."""
    return _song(state.row("music_songs", song_id, "song"))


@music.api("GET", "/liked_songs", [SONG])
def show_liked_songs(state: State, page_index: PageIndex = 0, page_limit: PageLimit = 5) -> Json:
    """Show the songs that you like."""
    rows = state.rows(
        "SELECT music_songs.* FROM music_songs JOIN music_likes ON music_songs.id = music_likes.song_id "
        "ORDER BY music_likes.id"
    )
    return page([_song(row) for row in rows], page_index, page_limit)


@music.api("POST", "/liked_songs/{song_id}", DONE)
def like_song(state: State, song_id: int) -> Json:
    """Like a song."""
    state.row("music_songs", song_id, "song")
    if _likes(state, song_id):
        raise ApiError("You already like this song.", 409)
    state.insert("music_likes", song_id=song_id)
    return {"message": "Song liked."}


@music.api("DELETE", "/liked_songs/{song_id}", DONE)
def unlike_song(state: State, song_id: int) -> Json:
    """Like a song no longer."""
    found = _likes(state, song_id)
    if not found:
        raise ApiError("You do not like this song.", 409)
    state.delete("music_likes", found[0]["id"])
    return {"message": "Song unliked."}


@music.api("GET", "/playlists", [PLAYLIST])
def show_playlists(state: State, page_index: PageIndex = 0, page_limit: PageLimit = 5) -> Json:
    """Show your playlists and the songs in each."""
    rows = state.rows("SELECT * FROM music_playlists ORDER BY id")
    return [_playlist(state, row) for row in page(rows, page_index, page_limit)]


@music.api("GET", "/playlists/{playlist_id}", PLAYLIST)
def show_playlist(state: State, playlist_id: int) -> Json:
    """Show a playlist of yours and the songs in it."""
    return _playlist(state, state.row("music_playlists", playlist_id, "playlist"))


@music.api("POST", "/playlists", {**DONE, "playlist_id": 1})
def create_playlist(state: State, title: str) -> Json:
    """Make a playlist, without songs at first."""
    return {"message": "Playlist created.", "playlist_id": state.insert("music_playlists", title=title)}


@music.api("DELETE", "/playlists/{playlist_id}", DONE)
def delete_playlist(state: State, playlist_id: int) -> Json:
    """Remove a playlist."""
    state.row("music_playlists", playlist_id, "playlist")
    state.db.execute("DELETE FROM music_playlist_songs WHERE playlist_id = ?", (playlist_id,))
    state.delete("music_playlists", playlist_id)
    return {"message": "Playlist deleted."}


@music.api("POST", "/playlists/{playlist_id}/songs", DONE)
def add_song_to_playlist(state: State, playlist_id: int, song_id: int) -> Json:
    """Put a song into a playlist."""
    state.row("music_playlists", playlist_id, "playlist")
    state.row("music_songs", song_id, "song")
    if _entry(state, playlist_id, song_id):
        raise ApiError("The song is already in the playlist.", 409)
    state.insert("music_playlist_songs", playlist_id=playlist_id, song_id=song_id)
    return {"message": "Song added to the playlist."}


@music.api("DELETE", "/playlists/{playlist_id}/songs/{song_id}", DONE)
def remove_song_from_playlist(state: State, playlist_id: int, song_id: int) -> Json:
    """Take a song out of a playlist."""
    found = _entry(state, playlist_id, song_id)
    if not found:
        raise ApiError("The song is not in the playlist.", 409)
    state.delete("music_playlist_songs", found[0]["id"])
    return {"message": "Song removed from the playlist."}


def _likes(state: State, song_id: int) -> list[Row]:
    return state.rows("SELECT id FROM music_likes WHERE song_id = ?", song_id)


def _entry(state: State, playlist_id: int, song_id: int) -> list[Row]:
    query = "SELECT id FROM music_playlist_songs WHERE playlist_id = ? AND song_id = ?"
    return state.rows(query, playlist_id, song_id)


def _playlist(state: State, row: Row) -> Row:
    songs = state.rows("SELECT song_id FROM music_playlist_songs WHERE playlist_id = ? ORDER BY id", row["id"])
    return {"playlist_id": row["id"], "title": row["title"], "song_ids": [song["song_id"] for song in songs]}
