"""The supervisor app: who the task is for, their passwords, and the end of the task. Left out: cards and addresses."""

from __future__ import annotations

from typing import Annotated

from rlpost.envs.errands.registry import App
from rlpost.envs.errands.state import ApiError, Json, State

supervisor = App("supervisor", "An app to access your supervisor's personal information, and to end the task.", False)


_PROFILE = ("first_name", "last_name", "email", "phone_number", "birthday", "sex")


@supervisor.api("GET", "/profile", dict.fromkeys(_PROFILE, "string") | {"email": "a@b.c", "birthday": "2000-12-31"})
def show_profile(state: State) -> Json:
    """Show your supervisor's profile."""
    me = state.supervisor
    return {
        "first_name": me.first_name,
        "last_name": me.last_name,
        "email": me.email,
        "phone_number": me.phone_number,
        "birthday": state.birthday,
        "sex": state.sex,
    }


@supervisor.api("GET", "/account_passwords", [{"account_name": "string", "password": "string"}])
def show_account_passwords(state: State) -> Json:
    """Show your supervisor's account passwords."""
    return [{"account_name": name, "password": password} for name, password in state.passwords.items()]


@supervisor.api("GET", "/task", {"instruction": "string", "supervisor_email": "string", "datetime": "string"})
def show_active_task(state: State) -> Json:
    """Show the task that is to be done."""
    return {"instruction": state.instruction, "supervisor_email": state.supervisor.email, "datetime": state.now}


@supervisor.api("POST", "/task/complete", {"message": "string"})
def complete_task(
    state: State,
    answer: Annotated[str | None, "The answer, where the task asks for one; else leave it out."] = None,
    status: Annotated[str, "Whether the task was done: 'success' or 'fail' (given up)."] = "success",
) -> Json:
    """Mark the task as complete."""
    if state.status is not None:
        raise ApiError("The task has already been marked as complete.", 409)
    if status not in ("success", "fail"):
        raise ApiError("Validation error. Reason: \nstatus: it must be one of 'success' and 'fail'")
    state.answer, state.status = answer, status
    return {"message": "Marked the active task complete."}
