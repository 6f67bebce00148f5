"""The warm start: the same token ids as a rollout's, a real training in a process of its own, and bad data in words."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlpost.envs.base import Env, EnvError, Message
from rlpost.envs.payments import Payments
from rlpost.faults import RunError
from rlpost.learner.config import ModelConfig
from rlpost.learner.source import materialise
from rlpost.reward.plugins import Plugin
from rlpost.rollout.chat import ChatFormat, load_format
from rlpost.rollout.config import RolloutConfig
from rlpost.rollout.engine import Sample, SampleRequest
from rlpost.rollout.env_session import EnvFactory
from rlpost.rollout.env_threads import EnvThreads
from rlpost.rollout.episode import play
from rlpost.rollout.specs import EpisodeSpec
from rlpost.warm_start import WarmStartConfig, WarmStartJob, locate_data, warm_start
from rlpost.warm_start_data import IGNORED, DataError, load, tokenize
from tests.support.engines import ScriptedEngine, sample_of

GOOD: list[Message] = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = {"hidden": 16, "layers": 1, "heads": 1, "intermediate": 16}
    return materialise(ModelConfig.model_validate({"build": build}), tmp_path_factory.mktemp("warm") / "model", seed=3)


def _job(model: Path, output: Path, data: Path | None = None, **config: Any) -> WarmStartJob:
    return WarmStartJob(
        config=WarmStartConfig(**({"steps": 4, "batch_size": 8, "lr": 1e-2, "examples": 32} | config)),
        model=str(model),
        output=str(output),
        data=None if data is None else str(data),
        env=Plugin("rlpost.envs.payments:Payments"),
        env_options={"expert_share": 0.5},
        rollout=RolloutConfig(max_turns=5, max_new_tokens=12, max_context=256),
        trust_remote_code=False,
        seed=11,
    )


def _write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["template", "plain"])
def test_a_demonstration_has_the_ids_of_an_episode_of_the_same_words(model: Path, kind: Any) -> None:
    chat = load_format(model, kind)
    tokenizer = AutoTokenizer.from_pretrained(model)
    task = Payments.tasks("train", 0)[0]
    name, amount = task.data["name"], task.data["amount"]
    account = {**task.data["contacts"], **task.data["ledger"]}[name]
    script = iter([f"c {name}", f"l {name}", f"p {account} {amount}", "d"])

    def answer(request: SampleRequest) -> Sample:
        ids = tokenizer(next(script), add_special_tokens=False)["input_ids"]
        return sample_of([*ids, tokenizer.eos_token_id])

    config = RolloutConfig(max_turns=5, max_new_tokens=12, max_context=256, chat=kind)
    spec = EpisodeSpec(task, group_id=0, index=0, seed=0)
    trajectory = asyncio.run(
        play(EnvFactory(Payments, {}), ScriptedEngine(answer), chat, config, spec, EnvThreads())  # type: ignore[arg-type]
    )
    assert trajectory.reward == 1
    conversation = tokenize(_transcript(Payments(task, 0), account), chat)
    ids, labels = conversation.input_ids, conversation.labels
    assert ids == trajectory.token_ids.tolist()
    assert [label != IGNORED for label in labels] == trajectory.policy_mask.tolist()
    assert all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
    assert conversation.last_turn == trajectory.turns[-1].start


def _transcript(env: Env, account: str) -> list[Message]:
    """The same four actions, played by hand."""
    messages = list(env.start())
    _, name, amount = messages[0]["content"].split()
    for action in (f"c {name}", f"l {name}", f"p {account} {amount}", "d"):
        messages.append({"role": "assistant", "content": action})
        observation = env.step(action)
        if not observation.done:
            messages.append({"role": "user", "content": observation.text})
    return messages


def test_it_trains_in_a_process_of_its_own_and_ends_on_the_check(model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    done: list[str] = []
    job = _job(model, tmp_path / "warm", steps=14, stop_accuracy=0.9)
    folder = warm_start(job, said.append, done.append)
    assert said[0] == "warm start: reading conversations"
    assert [words.split(",")[0] for words in said[1:]] == [
        "warm start: step 10 of at most 14",
        "warm start: step 14 of at most 14",
    ]
    assert len(done) == 1
    assert done[0].startswith("warm start done: 14 steps, accuracy 0.0")  # fourteen steps teach nobody to copy
    assert "short of warm_start.stop_accuracy 0.9" in done[0]
    before, after = (_loss(place, load(job, load_format(model))[0][:8]) for place in (model, folder))
    assert before == pytest.approx(math.log(264), rel=0.05)  # a fresh model finds all of its 264 tokens equally likely
    assert after < 0.8 * before
    assert (
        AutoTokenizer.from_pretrained(folder)("a é")["input_ids"]
        == AutoTokenizer.from_pretrained(model)("a é")["input_ids"]
    )
    assert not (folder / "job.pickle").exists()


def _loss(folder: Path, conversations: list[Any]) -> float:
    """Mean cross-entropy over what the assistant says, nats a token."""
    import torch

    model = AutoModelForCausalLM.from_pretrained(folder)
    losses = []
    for conversation in conversations:
        with torch.no_grad():
            logits = model(torch.tensor([conversation.input_ids])).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(conversation.labels[1:])).item())
    return sum(losses) / len(losses)


def test_the_check_is_the_probability_of_the_whole_last_turn(model: Path) -> None:
    """Against a sum by hand, one conversation at a time."""
    import torch

    from rlpost.warm_start_trainer import accuracy

    chat = load_format(model)
    checks = [tokenize([*GOOD[:1], {"role": "assistant", "content": text}], chat) for text in ("2", "", "two")]
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    expected = 0.0
    for check in checks:
        with torch.no_grad():
            probabilities = network(torch.tensor([check.input_ids])).logits[0].double().softmax(-1)
        chance = 1.0
        for place in range(check.last_turn, len(check.input_ids)):
            chance *= float(probabilities[place - 1, check.input_ids[place]])
        expected += chance / 3
    assert accuracy(network, checks) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{oops", r"data\.jsonl, line 2: not JSON"),
        ({"text": "hi"}, r"data\.jsonl, line 2: no column 'messages'; there are: text"),
        ({"messages": "hi"}, r"line 2: 'messages' must be a list of role and content, it is str"),
        ({"messages": [*GOOD, {"role": "user"}]}, r"line 2: message 3 must have a role and a content"),
        ({"messages": []}, r"line 2: a conversation must open with a message to the assistant and end with"),
        ({"messages": [*GOOD, GOOD[0]]}, r"line 2: a conversation must open .* and end with the assistant's"),
        ({"messages": [*GOOD, GOOD[1]]}, r"line 2: from the assistant's first message on, .* must take turns"),
    ],
)
def test_bad_data_is_named_with_file_and_line(model: Path, tmp_path: Path, row: object, reason: str) -> None:
    data = _write(tmp_path / "data.jsonl", {"messages": GOOD}, row)
    with pytest.raises((DataError, EnvError), match=reason):
        load(_job(model, tmp_path, data), load_format(model))


def test_a_file_is_split_only_where_a_check_asks_for_it(model: Path, tmp_path: Path) -> None:
    sums = [[{"role": "user", "content": f"{i}+1="}, {"role": "assistant", "content": str(i + 1)}] for i in range(30)]
    data = _write(tmp_path / "data.jsonl", *({"messages": messages} for messages in sums))
    chat = load_format(model)
    everything = [tokenize(messages, chat) for messages in sums]  # type: ignore[arg-type]
    assert load(_job(model, tmp_path, data), chat) == (everything, [])
    assert load(_job(model, tmp_path, data, stop_accuracy=0.5), chat) == (everything[:27], everything[27:])


def test_long_conversations_are_cut_and_useless_ones_dropped(model: Path, tmp_path: Path) -> None:
    chat: ChatFormat = load_format(model)
    long = [{"role": "user", "content": "x" * 60}, GOOD[1]]
    data = _write(tmp_path / "data.jsonl", {"messages": [*GOOD, *GOOD]}, {"messages": long})
    job = _job(model, tmp_path, data)
    first = tokenize([*GOOD, *GOOD], chat)
    short = dataclasses.replace(job, rollout=RolloutConfig(max_new_tokens=4, max_context=len(first.input_ids) - 1))
    (cut,), _ = load(short, chat)
    assert (cut.input_ids, cut.labels) == (first.input_ids[:-1], first.labels[:-1])
    nothing = dataclasses.replace(job, rollout=RolloutConfig(max_new_tokens=4, max_context=12))
    with pytest.raises(DataError, match=r"no conversation to train on fits into rollout\.max_context \(12 tokens\)"):
        load(nothing, chat)


def test_the_childs_reasons_reach_the_user(model: Path, tmp_path: Path) -> None:
    data = _write(tmp_path / "data.jsonl", {"messages": GOOD}, {"messages": GOOD[1:]})
    with pytest.raises(RunError, match=r"^warm_start: .*data\.jsonl, line 2: a conversation must open"):
        warm_start(_job(model, tmp_path / "warm", data), lambda _: None)


BROKEN_ENV = """
from rlpost.envs.base import Env
class Broken(Env):
    @classmethod
    def demonstrations(cls, split, seed, count, **options):
        raise ZeroDivisionError("in the user's own code")
"""


def test_a_crash_shows_the_last_log_lines(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN_ENV)
    job = dataclasses.replace(
        _job(model, tmp_path / "warm"), env=Plugin.locate("broken.py:Broken", tmp_path), env_options={}
    )
    with pytest.raises(
        RunError, match=r"(?s)ended with exit status 1\. Last lines .*broken\.py.*ZeroDivisionError: in the"
    ):
        warm_start(job, lambda _: None)


def test_a_silent_child_is_ended(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no sign of life for 0 s"):
        warm_start(_job(model, tmp_path / "warm"), lambda _: None, silence_s=0.01)


def test_data_is_looked_for_beside_the_recipe_first(tmp_path: Path) -> None:
    _write(tmp_path / "data.jsonl", {"messages": GOOD})
    assert locate_data("env", tmp_path) is None
    assert locate_data("data.jsonl", tmp_path) == str(tmp_path / "data.jsonl")
    assert locate_data("owner/conversations", tmp_path) == "owner/conversations"
