"""The notes app. Left out: tags, pinning, sharing."""

from __future__ import annotations

from typing import Annotated

from rlpost.envs.errands.apps.common import PageIndex, PageLimit, add_login, matches, page
from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import Json, State

notes = App("notes", "An app to write notes and to find them again.")
add_login(notes)
DONE = {"message": "string"}


@notes.api("GET", "/notes", [{"note_id": 1, "title": "string"}])
def search_notes(
    state: State,
    query: Annotated[str, "Words in the note's title or content."] = "",
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Search your notes; all of them without a query."""
    rows = state.rows("SELECT * FROM notes_notes ORDER BY id")
    kept = [row for row in rows if matches(query, row["title"], row["content"])]
    return page([{"note_id": row["id"], "title": row["title"]} for row in kept], page_index, page_limit)


@notes.api("GET", "/notes/{note_id}", {"note_id": 1, "title": "string", "content": "string", "updated_at": "string"})
def show_note(state: State, note_id: int) -> Json:
    """Show a note with its content."""
    row = state.row("notes_notes", note_id, "note")
    return {"note_id": row.pop("id"), **row}


@notes.api("POST", "/notes", {**DONE, "note_id": 1})
def create_note(state: State, title: str, content: str) -> Json:
    """Write a new note."""
    made = state.insert("notes_notes", title=title, content=content, updated_at=state.now)
    return {"message": "Note created.", "note_id": made}


@notes.api("PATCH", "/notes/{note_id}", DONE)
def update_note(state: State, note_id: int, title: str | None = None, content: str | None = None) -> Json:
    """Change the title or the content of a note."""
    state.row("notes_notes", note_id, "note")
    given = {"title": title, "content": content}
    changes = {name: value for name, value in given.items() if value is not None}
    state.update("notes_notes", note_id, updated_at=state.now, **changes)
    return {"message": "Note updated."}


@notes.api("DELETE", "/notes/{note_id}", DONE)
def delete_note(state: State, note_id: int) -> Json:
    """Remove a note."""
    state.row("notes_notes", note_id, "note")
    state.delete("notes_notes", note_id)
    return {"message": "Note deleted."}
