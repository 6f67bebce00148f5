"""The phone app: contacts and text messages. Left out: calls, alarms, voice messages."""

from __future__ import annotations

from typing import Annotated

from rlpost.envs.errands.apps.common import PageIndex, PageLimit, add_login, matches, page
from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import ApiError, Json, Row, State

phone = App("phone", "An app to manage your contacts and to send and read text messages.")
add_login(phone)
CONTACT = {
    "contact_id": 1,
    "first_name": "string",
    "last_name": "string",
    "email": "a@b.c",
    "phone_number": "string",
    "relationships": ["string"],
}
DONE = {"message": "string"}


def _contact(row: Row) -> Row:
    shown = {"contact_id": row.pop("id"), **row}
    return shown | {"relationships": [word for word in row["relationships"].split(",") if word]}


@phone.api("GET", "/contacts", [CONTACT])
def search_contacts(
    state: State,
    query: Annotated[str, "Words in the contact's name, email or phone number."] = "",
    relationship: Annotated[str | None, "Only contacts of this relationship to you, e.g. friend."] = None,
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Search your contacts; all of them without a query."""
    found = [_contact(row) for row in state.rows("SELECT * FROM phone_contacts ORDER BY first_name, id")]
    kept = [
        row
        for row in found
        if matches(query, row["first_name"], row["last_name"], row["email"], row["phone_number"])
        and (relationship is None or relationship in row["relationships"])
    ]
    return page(kept, page_index, page_limit)


@phone.api("POST", "/contacts", {**DONE, "contact_id": 1})
def add_contact(state: State, first_name: str, last_name: str, email: str = "", phone_number: str = "") -> Json:
    """Add a contact."""
    values = {"first_name": first_name, "last_name": last_name, "email": email, "phone_number": phone_number}
    return {"message": "Contact added.", "contact_id": state.insert("phone_contacts", relationships="", **values)}


@phone.api("PATCH", "/contacts/{contact_id}", DONE)
def update_contact(state: State, contact_id: int, email: str | None = None, phone_number: str | None = None) -> Json:
    """Change the email or phone number of a contact."""
    state.row("phone_contacts", contact_id, "contact")
    given = {"email": email, "phone_number": phone_number}
    if changes := {name: value for name, value in given.items() if value is not None}:
        state.update("phone_contacts", contact_id, **changes)
    return {"message": "Contact updated."}


@phone.api("DELETE", "/contacts/{contact_id}", DONE)
def delete_contact(state: State, contact_id: int) -> Json:
    """Remove a contact."""
    state.row("phone_contacts", contact_id, "contact")
    state.delete("phone_contacts", contact_id)
    return {"message": "Contact removed."}


@phone.api(
    "GET",
    "/messages",
    [{"message_id": 1, "phone_number": "string", "direction": "sent", "message": "string", "sent_at": "string"}],
)
def show_text_messages(
    state: State,
    phone_number: Annotated[str | None, "Only messages to or from this phone number."] = None,
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Show your text messages, newest first."""
    rows = state.rows("SELECT * FROM phone_messages ORDER BY sent_at DESC, id DESC")
    kept = [row for row in rows if phone_number in (None, row["phone_number"])]
    return page([{"message_id": row.pop("id"), **row} for row in kept], page_index, page_limit)


@phone.api("POST", "/messages/text/{phone_number}", {**DONE, "message_id": 1})
def send_text_message(state: State, phone_number: str, message: str) -> Json:
    """Send a text message."""
    if not state.rows("SELECT id FROM phone_contacts WHERE phone_number = ?", phone_number):
        raise ApiError(f"No user with the phone number {phone_number} exists.", 409)
    sent = {"phone_number": phone_number, "direction": "sent", "message": message, "sent_at": state.now}
    return {"message": "Text message sent.", "message_id": state.insert("phone_messages", **sent)}
