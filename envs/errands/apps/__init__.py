"""The apps of an errands world, by name. Left out: what an app is (registry.py)."""

from __future__ import annotations

from rlpost.envs.errands.apps.music import music
from rlpost.envs.errands.apps.notes import notes
from rlpost.envs.errands.apps.phone import phone
from rlpost.envs.errands.apps.supervisor import supervisor
from rlpost.envs.errands.apps.wallet import wallet
from rlpost.envs.errands.registry import App, NoSuchApi
from rlpost.envs.errands.state import ApiError, Json, State

api_docs = App("api_docs", "An app to look up which apps and APIs there are and how to call them.", private=False)
APPS: dict[str, App] = {app.name: app for app in (api_docs, supervisor, phone, wallet, music, notes)}


@api_docs.api("GET", "/apps", [{"name": "string", "description": "string"}])
def show_app_descriptions(state: State) -> Json:
    """Show the name and a description of every app."""
    return [{"name": app.name, "description": app.description} for app in APPS.values()]


@api_docs.api("GET", "/apps/{app_name}/apis", [{"name": "string", "description": "string"}])
def show_api_descriptions(state: State, app_name: str) -> Json:
    """Show the name and a description of every API of an app."""
    return [{"name": api.name, "description": api.description} for api in _app(app_name).apis.values()]


@api_docs.api("GET", "/apps/{app_name}/apis/{api_name}", {"app_name": "string", "api_name": "string", "...": "..."})
def show_api_doc(state: State, app_name: str, api_name: str) -> Json:
    """Show how an API is called: its parameters, and what it returns."""
    apis = _app(app_name).apis
    if api_name not in apis:
        raise NoSuchApi(f"No API named '{api_name}' found in the {app_name} app.")
    return apis[api_name].doc()


def _app(name: str) -> App:
    if name not in APPS:
        raise ApiError(f"No app named '{name}' found. The available apps are: {', '.join(APPS)}.", 422)
    return APPS[name]
