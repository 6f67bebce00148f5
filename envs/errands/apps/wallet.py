"""The wallet app: money sent and received, and requests for it. Left out: bank accounts, cards, comments."""

from __future__ import annotations

from typing import Annotated

from rlpost.envs.errands.apps.common import PageIndex, PageLimit, add_login, page
from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import ApiError, Json, Row, State

wallet = App("wallet", "An app to send money to others, to receive it and to request it.")
add_login(wallet)
START = 1000.0
"""Balance before any transaction in the app."""
TRANSACTION = {
    "transaction_id": 1,
    "email": "a@b.c",
    "direction": "sent",
    "amount": 1.5,
    "note": "string",
    "created_at": "2023-05-18T12:00:00",
}
REQUEST = {
    "payment_request_id": 1,
    "email": "a@b.c",
    "direction": "received",
    "amount": 1.5,
    "note": "string",
    "status": "pending",
    "created_at": "2023-05-18T12:00:00",
}


@wallet.api("GET", "/balance", {"balance": 1.5})
def show_balance(state: State) -> Json:
    """Show your balance."""
    return {"balance": _balance(state)}


@wallet.api("GET", "/transactions", [TRANSACTION])
def show_transactions(
    state: State,
    direction: Annotated[str | None, "Only transactions that you have 'sent' or 'received'."] = None,
    email: Annotated[str | None, "Only transactions with the user of this email."] = None,
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Show your transactions, newest first; email is that of the other party."""
    rows = state.rows("SELECT * FROM wallet_transactions ORDER BY created_at DESC, id DESC")
    kept = [row for row in rows if direction in (None, row["direction"]) and email in (None, row["email"])]
    return page([{"transaction_id": row.pop("id"), **row} for row in kept], page_index, page_limit)


@wallet.api("POST", "/transactions", {"message": "string", "transaction_id": 1})
def send_money(
    state: State,
    receiver_email: Annotated[str, "Email of the one who is to receive it."],
    amount: Annotated[float, "How much, in dollars."],
    note: Annotated[str, "A note for the transaction."] = "",
) -> Json:
    """Send money to somebody."""
    _check(state, receiver_email, amount)
    return {"message": "Money sent.", "transaction_id": _pay(state, receiver_email, amount, note)}


@wallet.api("GET", "/payment_requests", [REQUEST])
def show_payment_requests(
    state: State,
    direction: Annotated[str | None, "Only requests that you have 'sent' or 'received'."] = None,
    status: Annotated[str | None, "Only requests that are 'pending', 'approved' or 'denied'."] = None,
    page_index: PageIndex = 0,
    page_limit: PageLimit = 5,
) -> Json:
    """Show payment requests, newest first; email is that of the other party."""
    rows = state.rows("SELECT * FROM wallet_requests ORDER BY created_at DESC, id DESC")
    kept = [row for row in rows if direction in (None, row["direction"]) and status in (None, row["status"])]
    return page([{"payment_request_id": row.pop("id"), **row} for row in kept], page_index, page_limit)


@wallet.api("POST", "/payment_requests", {"message": "string", "payment_request_id": 1})
def create_payment_request(
    state: State,
    user_email: Annotated[str, "Email of the one who is to pay."],
    amount: Annotated[float, "How much, in dollars."],
    note: Annotated[str, "A note for the request."] = "",
) -> Json:
    """Request money from somebody."""
    _check(state, user_email, amount)
    asked = {"email": user_email, "direction": "sent", "amount": round(amount, 2), "note": note}
    made = state.insert("wallet_requests", status="pending", created_at=state.now, **asked)
    return {"message": "Payment request sent.", "payment_request_id": made}


@wallet.api("POST", "/payment_requests/{payment_request_id}/approve", {"message": "string"})
def approve_payment_request(state: State, payment_request_id: int) -> Json:
    """Approve a payment request that you have received, which pays it."""
    request = _pending(state, payment_request_id)
    _check(state, request["email"], request["amount"])
    _pay(state, request["email"], request["amount"], request["note"])
    state.update("wallet_requests", payment_request_id, status="approved")
    return {"message": "Payment request approved."}


@wallet.api("POST", "/payment_requests/{payment_request_id}/deny", {"message": "string"})
def deny_payment_request(state: State, payment_request_id: int) -> Json:
    """Deny a payment request that you have received."""
    _pending(state, payment_request_id)
    state.update("wallet_requests", payment_request_id, status="denied")
    return {"message": "Payment request denied."}


def _balance(state: State) -> float:
    rows = state.rows("SELECT direction, amount FROM wallet_transactions")
    return round(START + sum(row["amount"] * (1 if row["direction"] == "received" else -1) for row in rows), 2)


def _check(state: State, email: str, amount: float) -> None:
    if not state.rows("SELECT id FROM phone_contacts WHERE email = ?", email):
        raise ApiError(f"The user with email {email} does not exist.", 409)
    if not 0.01 <= amount <= 1e6:
        raise ApiError("Validation error. Reason: \namount: ensure this value is between 0.01 and 1000000")


def _pay(state: State, email: str, amount: float, note: str) -> int:
    if amount > _balance(state):
        raise ApiError(f"You do not have enough balance: it is {_balance(state)}.", 422)
    paid = {"email": email, "direction": "sent", "amount": round(amount, 2), "note": note}
    return state.insert("wallet_transactions", created_at=state.now, **paid)


def _pending(state: State, request_id: int) -> Row:
    request = state.row("wallet_requests", request_id, "payment request")
    if request["direction"] != "received":
        raise ApiError("You can only approve or deny payment requests that you have received.", 403)
    if request["status"] != "pending":
        raise ApiError(f"The payment request is already {request['status']}.", 409)
    return request
