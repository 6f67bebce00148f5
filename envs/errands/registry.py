"""Apps and their APIs: declared as functions, documented from their signatures, called by name.

Refusals are worded as an AppWorld server words them. Left out: the apps themselves (apps/).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rlpost.envs.errands.state import ApiError, Json, State

TYPES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
WRONG = {
    str: "str type expected",
    int: "value is not a valid integer",
    float: "value is not a valid float",
    bool: "value could not be parsed to a boolean",
}
TOKEN = "access_token"
UNAUTHORIZED = (
    "You are either not authorized to access this {app} API endpoint or your access token is missing, "
    "invalid or expired."
)


class NoSuchApi(Exception):
    """There is no such app or API; the message is what the solver reads."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One keyword argument; ``kind`` is its Python type."""

    name: str
    kind: type
    required: bool
    default: Json
    description: str


@dataclass(frozen=True, slots=True)
class Api:
    """One API of an app.

    Attributes:
        function: called with the state and the checked arguments.
        private: whether it wants an access token.
        response: an example of what it returns.
    """

    app: str
    name: str
    method: str
    path: str
    description: str
    parameters: tuple[Parameter, ...]
    function: Callable[..., Json]
    private: bool
    response: Json

    def doc(self) -> dict[str, Json]:
        """Its page in the API docs."""
        listed = list(self.parameters)
        if self.private:
            listed.append(Parameter(TOKEN, str, True, None, f"Access token obtained from {self.app} app login."))
        return {
            "app_name": self.app,
            "api_name": self.name,
            "path": f"/{self.app}{self.path}",
            "method": self.method,
            "description": self.description,
            "parameters": [
                {
                    "name": parameter.name,
                    "type": TYPES[parameter.kind],
                    "required": parameter.required,
                    "description": parameter.description,
                    "default": parameter.default,
                    "constraints": [],
                }
                for parameter in listed
            ],
            "response_schemas": {"success": self.response, "failure": {"message": "string"}},
        }

    def call(self, state: State, arguments: Mapping[str, Json]) -> Json:
        """Check the arguments (unknown ones are ignored, as AppWorld does) and do it.

        Raises:
            ApiError: no valid token, wrong arguments, or the app's own refusal.
        """
        if self.private and not state.signed_in and state.tokens.get(str(arguments.get(TOKEN))) != self.app:
            raise ApiError(UNAUTHORIZED.format(app=self.app), 401)
        checked: dict[str, Json] = {}
        wrong: list[str] = []
        for parameter in self.parameters:
            given = arguments.get(parameter.name)
            if given is None:
                if parameter.required:
                    wrong.append(f"{parameter.name}: field required")
                continue
            try:
                checked[parameter.name] = _convert(given, parameter.kind)
            except (TypeError, ValueError, OverflowError):
                wrong.append(f"{parameter.name}: {WRONG[parameter.kind]}")
        if wrong:
            raise ApiError("\n".join(["Validation error. Reason: ", *wrong]))
        return self.function(state, **checked)


@dataclass(slots=True)
class App:
    """One app: a name, a line about it, and its APIs."""

    name: str
    description: str
    private: bool = True
    apis: dict[str, Api] = field(default_factory=dict)

    def api(self, method: str, path: str, response: Json, private: bool | None = None) -> Callable[[Any], Any]:
        """Declare a function as an API: its name, signature and docstring's first line are the documentation."""

        def declare(function: Callable[..., Json]) -> Callable[..., Json]:
            description = (inspect.getdoc(function) or "").splitlines()[0]
            needs_token = self.private if private is None else private
            self.apis[function.__name__] = Api(
                self.name,
                function.__name__,
                method,
                path,
                description,
                _parameters(function),
                function,
                needs_token,
                response,
            )
            return function

        return declare


def call(apps: Mapping[str, App], state: State, app: str, api: str, arguments: Mapping[str, Json]) -> Json:
    """Call an API by name, and count it.

    Raises:
        NoSuchApi: no such app or API.
        ApiError: see ``Api.call``.
    """
    if app not in apps:
        raise NoSuchApi(f"No app named '{app}' found.")
    if api not in apps[app].apis:
        raise NoSuchApi(f"No API named '{api}' found in the {app} app.")
    state.calls[f"{app}.{api}"] += 1
    return apps[app].apis[api].call(state, arguments)


def find(apps: Mapping[str, App], method: str, url: str) -> tuple[str, str, dict[str, str]]:
    """App, API and path parameters of a request by method and URL, e.g. ``GET /music/songs/3``.

    Raises:
        ApiError: nothing is there.
    """
    for app in apps.values():
        for api in app.apis.values():
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", f"/{app.name}{api.path}")
            if api.method == method.upper() and (match := re.fullmatch(pattern, "/" + url.strip("/"))):
                return app.name, api.name, match.groupdict()
    raise ApiError(f"The {url} is not a valid URL.", 404)


def refusal(error: ApiError) -> str:
    """What the solver reads of an ApiError that is raised in its code."""
    body = json.dumps({"message": str(error)}, separators=(",", ":"), ensure_ascii=False)
    return f"Response status code is {error.status}:\n{body}"


def _parameters(function: Callable[..., Json]) -> tuple[Parameter, ...]:
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        kind, description = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], "")
        required = parameter.default is inspect.Parameter.empty
        plain = next((member for member in get_args(kind) if member is not type(None)), kind)
        found.append(Parameter(name, plain, required, None if required else parameter.default, description))
    return tuple(found)


def _convert(value: Json, kind: type) -> Json:
    """As a lenient JSON API would take it: numbers from their text, text from numbers."""
    if kind is bool:
        if not isinstance(value, bool):
            raise TypeError
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    if kind is int and isinstance(value, float) and value != int(value):
        raise ValueError
    converted = kind(value)
    if kind is int and abs(converted) >= 2**63:
        raise OverflowError
    return converted
