"""What several apps share: signing in, and pages of a list. Left out: everything that only one app does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import ApiError, Json, Row, State

PageIndex = Annotated[int, "The index of the page to return, from 0."]
PageLimit = Annotated[int, "The number of results a page, at most 20."]
MOST = 20


def add_login(app: App) -> None:
    """Give an app its ``login``."""

    def login(
        state: State,
        username: Annotated[str, "Your account email or phone number."],
        password: Annotated[str, "Your account password."],
    ) -> Json:
        """Sign in to your account."""
        me = state.supervisor
        if username not in (me.email, me.phone_number) or password != state.passwords[app.name]:
            raise ApiError("Invalid credentials", 401)
        token = hashlib.blake2b(f"{app.name} {me.email} {len(state.tokens)}".encode(), digest_size=16).hexdigest()
        state.tokens[token] = app.name
        return {"access_token": token, "token_type": "Bearer"}

    app.api("POST", "/auth/token", {"access_token": "string", "token_type": "string"}, private=False)(login)


def page(rows: Sequence[Row], page_index: int, page_limit: int) -> list[Row]:
    """One page of a list.

    Raises:
        ApiError: an impossible page.
    """
    if page_index < 0:
        raise ApiError("Validation error. Reason: \npage_index: ensure this value is greater than or equal to 0")
    if not 1 <= page_limit <= MOST:
        raise ApiError(f"Validation error. Reason: \npage_limit: ensure this value is between 1 and {MOST}")
    return list(rows[page_index * page_limit : (page_index + 1) * page_limit])


def matches(query: str, *texts: str) -> bool:
    """Whether every word of a query is in the texts; an empty query matches all."""
    together = " ".join(texts).lower()
    return all(word in together for word in query.lower().split())
