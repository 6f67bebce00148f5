"""The contract with AppWorld's surface: the same calls against our world in Python, over HTTP, and the real AppWorld.

The real one is tried where APPWORLD_PYTHON names the interpreter it is installed for and APPWORLD_ROOT its data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlpost.envs.appworld_client import Deadlines, LocalWorld, RemoteWorld, World, appworld_servers, errands_servers
from rlpost.envs.errands.datasets import load_task_ids
from rlpost.reward import sandbox

pytestmark = pytest.mark.skipif(sandbox.isolation() is None, reason=sandbox.isolation_problem())
FAILED = "Execution failed. Traceback:\n"


@dataclass
class Surface:
    """A world, and an app of it that wants a login and lists liked songs."""

    world: World
    music: str


def _real() -> RemoteWorld:
    python, root = os.environ.get("APPWORLD_PYTHON"), os.environ.get("APPWORLD_ROOT", "")
    listed = Path(root) / "data" / "datasets" / "train.txt"
    if not python or not listed.is_file():
        pytest.skip("AppWorld and its data are not installed (APPWORLD_PYTHON, APPWORLD_ROOT)")
    servers = appworld_servers(python, root, 1)
    return RemoteWorld(servers, listed.read_text().split()[0], "rlpost/contract", Deadlines())


@pytest.fixture(scope="module", params=["local", "http", "appworld"])
def surface(request: pytest.FixtureRequest) -> Iterator[Surface]:
    task_id = load_task_ids("train")[0]
    world: World
    if request.param == "local":
        world = LocalWorld(task_id, "contract", 20.0, unsafe=False)
    elif request.param == "http":
        world = RemoteWorld(errands_servers(1), task_id, "contract", Deadlines())
    else:
        world = _real()
    yield Surface(world, "spotify" if request.param == "appworld" else "music")
    world.close()


CALLS = {
    "nothing to run": ("", "No code available to execute."),
    "only a comment of white space": ("  \n ", "No code available to execute."),
    "nothing printed": ("kept = 20", "Execution successful."),
    "a last expression is not shown": ("kept", "Execution successful."),
    "variables stay": ("print(kept + 1)", "21"),
    "short lists on one line": ("print([1, 'a'])", '[1, "a"]'),
    "an error": ("1 / 0", FAILED + '  File "<python-input>", line 1, in <module>'),
    "the error's name": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no such app": ("apis.nothing.show()", "Exception: No app named 'nothing' found."),
    "no such API": ("apis.supervisor.nothing()", "Exception: No API named 'nothing' found in the supervisor app."),
    "a syntax error": ("y = [1,", FAILED + "Syntax error in line:\ny = [1,\nMessage: '[' was never closed"),
    "a refused function": (
        "import os\nos.system('ls')",
        FAILED + "Usage of the following function is not allowed: os.system.",
    ),
    "input": ("input()", "Exception: input(..) is not allowed. All decisions must be made autonomously."),
    "not signed in": (
        "apis.{music}.show_liked_songs(access_token='x')",
        'Exception: Response status code is 401:\n{{"message":"You are either not authorized to access this {music} '
        'API endpoint or your access token is missing, invalid or expired."}}',
    ),
    "the profile": (
        "print(sorted(apis.supervisor.show_profile()))",
        '["birthday", "email", "first_name", "last_name", "phone_number", "sex"]',
    ),
    "passwords": (
        "print(sorted(apis.supervisor.show_account_passwords()[0]))",
        '["account_name", "password"]',
    ),
    "apps": ("print(sorted(apis.api_docs.show_app_descriptions()[0]))", '["description", "name"]'),
    "APIs": (
        "print(sorted(apis.api_docs.show_api_descriptions(app_name='supervisor')[0]))",
        '["description", "name"]',
    ),
    "a doc": (
        "print(sorted(apis.api_docs.show_api_doc(app_name='supervisor', api_name='complete_task')))",
        '["api_name", "app_name", "description", "method", "parameters", "path", "response_schemas"]',
    ),
    "signing in": (
        "word = {{row['account_name']: row['password'] for row in apis.supervisor.show_account_passwords()}}\n"
        "me = apis.supervisor.show_profile()\n"
        "token = apis.{music}.login(username=me['email'], password=word['{music}'])['access_token']\n"
        "print(type(apis.{music}.show_liked_songs(access_token=token, page_index=0, page_limit=1)).__name__)",
        "list",
    ),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_the_same_call_has_the_same_answer(surface: Surface, name: str) -> None:
    code, wanted = (text.format(music=surface.music) if "{" in text else text for text in CALLS[name])
    printed = (
        surface.world.execute(code).rstrip("\n").replace('[\n "', '["').replace('",\n "', '", "').replace('"\n]', '"]')
    )
    assert wanted in printed
    if "successful" in wanted or "No code" in wanted:
        assert printed == wanted


def test_completion_and_tests(surface: Surface) -> None:
    world = surface.world
    assert set(world.describe()) >= {"instruction", "supervisor", "datetime"}
    assert set(world.describe()["supervisor"]) == {"first_name", "last_name", "email", "phone_number"}
    assert world.task_completed() is False
    assert world.execute("apis.supervisor.complete_task()").rstrip() == "Execution successful."
    assert world.task_completed() is True
    verdict = world.evaluate()
    assert verdict["success"] is False
    assert verdict["num_tests"] == len(verdict["passes"]) + len(verdict["failures"])
    for test in [*verdict["passes"], *verdict["failures"]]:
        assert test["label"] in ("no_op_fail", "no_op_pass")
    assert all(test["label"] == "no_op_fail" for test in verdict["failures"])


def test_states_are_kept_and_brought_back() -> None:
    from rlpost.envs.errands.world import ErrandsWorld

    with ErrandsWorld(load_task_ids("train")[0]) as world:
        world.save_state("start")
        for block in world.plan.solution:
            world.execute(block)
        assert world.evaluate().success
        world.load_state("start")
        assert not world.evaluate().success
        assert not world.task_completed()


def test_too_many_calls_and_executions_are_refused() -> None:
    from rlpost.envs.errands.world import ErrandsWorld

    task_id = load_task_ids("train")[0]
    with ErrandsWorld(task_id, max_api_calls_per_interaction=3, max_interactions=2) as world:
        said = world.execute("while True: apis.music.search_songs()")
        assert "Exception: Number of requests exceeded the limit of 3." in said
        assert world.execute("print(len(apis.music.search_songs()))").strip() == "5"
        assert world.execute("1") == FAILED + "Exception: Maximum number of executions (2) reached."


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("apis.music.search_songs(page_limit='a')", "page_limit: value is not a valid integer"),
        ("apis.music.show_song()", "song_id: field required"),
        ("apis.music.show_song(song_id=999)", '409:\n{"message":"The song with id 999 does not exist."}'),
        ("apis.music.login(username='a', password='b')", '401:\n{"message":"Invalid credentials"}'),
        ("apis.music.search_songs(page_limit=50)", "page_limit: ensure this value is between 1 and 20"),
        ("apis.supervisor.complete_task(status='maybe')", "status: it must be one of 'success' and 'fail'"),
        ("requester.get('/music/nowhere/1')", "404:"),
    ],
)
def test_wrong_calls_are_worded(code: str, message: str) -> None:
    from rlpost.envs.errands.world import ErrandsWorld

    with ErrandsWorld(load_task_ids("train")[0]) as world:
        assert message in world.execute(code)
        assert world.execute("print(requester.get('/music/songs/3')['song_id'])").strip() == "3"
