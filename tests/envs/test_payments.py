"""The payments world: its rules word for word, disjoint splits, what chance achieves, and honest demonstrations."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from rlpost.envs.base import Demonstration, EnvError, Task
from rlpost.envs.payments import Payments
from rlpost.envs.payments_world import ACCOUNTS, MAX_TURNS

TASK = Task("bgh-7", {"name": "bgh", "amount": 7, "contacts": {"kwx": "AB"}, "ledger": {"bgh": "DC", "qvz": "EF"}})


def _play(*actions: str, task: Task = TASK) -> tuple[list[str], float]:
    """The answers up to the end of the episode, and the reward."""
    env = Payments(task, seed=0)
    answers = []
    for action in actions:
        observation = env.step(action)
        answers.append(observation.text)
        if observation.done:
            break
    return answers, env.score().reward


@pytest.mark.parametrize(
    ("actions", "answers", "reward"),
    [
        (["l bgh", "p DC 7", "d"], ["DC", "ok", ""], 1),
        (["c bgh", "l bgh", "p DC 7", "d"], ["-", "DC", "ok", ""], 1),
        (["p DC 7", "l bgh", "p DC 7", "d"], ["no", "DC", "ok", ""], 1),  # refused, so not a second payment
        (["l bgh", "p DC 7", "p DC 7", "d"], ["DC", "ok", "ok", ""], 0),  # paid twice
        (["l bgh", "p DC 8", "d"], ["DC", "ok", ""], 0),  # wrong amount
        (["l qvz", "p EF 7", "d"], ["EF", "ok", ""], 0),  # wrong account
        (["l bgh", "p DC 7", "l bgh", "c bgh", "c kwx"], ["DC", "ok", "DC", "-", "AB"], 0),  # never said done
        (["c bgh", "c bgh", "l bgh", "p DC 7", "d"], ["-", "-", "DC", "ok", ""], 1),  # the fifth action counts
        (["p bgh 7", "d"], ["no", ""], 0),
        (["d", "l bgh"], [""], 0),  # done is done
        (["L bgh", "l  bgh", "l bgh ", "p DC", "p DC x"], ["?", "?", "?", "?", "?"], 0),
        (["", "d.", "p DC 7\n", "l bgh\nd", "\ufffd<|im_end|>"], ["?", "?", "?", "?", "?"], 0),
    ],
)
def test_rules(actions: list[str], answers: list[str], reward: float) -> None:
    assert _play(*actions) == (answers, reward)


def test_the_task_is_all_the_model_is_told() -> None:
    assert Payments(TASK, seed=0).start() == [{"role": "user", "content": "pay bgh 7"}]


def test_metrics_count_what_was_done() -> None:
    env = Payments(TASK, seed=0)
    for action in ("l bgh", "l qvz", "p DC 7", "p EF 7"):
        env.step(action)
    assert env.metrics() == {"accounts": 2.0, "payments": 2.0}


def test_no_two_actions_solve_a_task() -> None:
    actions = ["d", "c bgh", "l bgh", *(f"p {account} 7" for account in ACCOUNTS)]
    assert len(actions) == 243
    assert max(_play(*pair)[1] for pair in itertools.product(actions, repeat=2)) == 0
    assert _play("l bgh", "p DC 7", "d")[1] == 1


def test_splits_are_disjoint_by_name_whatever_the_seeds() -> None:
    names = {
        (split, seed): [task.data["name"] for task in Payments.tasks(split, seed)]
        for split in ("train", "eval")
        for seed in (0, 1)
    }
    assert [len(found) for found in names.values()] == [1000, 1000, 256, 256]
    assert all(len(set(found)) == len(found) for found in names.values())
    train, held_out = {*names["train", 0], *names["train", 1]}, {*names["eval", 0], *names["eval", 1]}
    assert not train & held_out
    check = {d.messages[0]["content"].split()[1] for d in Payments.demonstrations("check", 0, 300)}
    trained = {d.messages[0]["content"].split()[1] for d in Payments.demonstrations("train", 0, 3000)}
    assert not check & (train | held_out)
    assert trained <= train


def test_tasks_follow_the_seed_and_can_be_solved() -> None:
    tasks = Payments.tasks("eval", 3)
    assert tasks == Payments.tasks("eval", 3) != Payments.tasks("eval", 4)
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        people = [*task.data["contacts"], *task.data["ledger"]]
        accounts = [*task.data["contacts"].values(), *task.data["ledger"].values()]
        assert len(set(people)) == len(set(accounts)) == 3
        name, amount = task.data["name"], task.data["amount"]
        app = "c" if name in task.data["contacts"] else "l"
        account = task.data["contacts" if app == "c" else "ledger"][name]
        assert _play(f"{app} {name}", f"p {account} {amount}", "d", task=task) == ([account, "ok", ""], 1)


def _any_action(rng: random.Random, task: Task) -> str:
    """Uniform over the four actions, then over names of the world, all accounts and all amounts."""
    people = [*task.data["contacts"], *task.data["ledger"]]
    return rng.choice(
        [
            f"c {rng.choice(people)}",
            f"l {rng.choice(people)}",
            f"p {rng.choice(ACCOUNTS)} {rng.randint(1, 9)}",
            "d",
        ]
    )


def _any_order(rng: random.Random, task: Task) -> str:
    """Uniform over the four actions with all arguments right, which no blind policy could know."""
    name, amount = task.data["name"], task.data["amount"]
    account = {**task.data["contacts"], **task.data["ledger"]}[name]
    return rng.choice([f"c {name}", f"l {name}", f"p {account} {amount}", "d"])


def _any_bytes(rng: random.Random, task: Task) -> str:
    return rng.randbytes(rng.randint(1, 8)).decode(errors="replace")


@pytest.mark.parametrize(("policy", "at_most"), [(_any_action, 0.001), (_any_order, 0.1), (_any_bytes, 0.0)])
def test_chance_does_not_solve_tasks(policy: Callable[[random.Random, Task], str], at_most: float) -> None:
    rng = random.Random(0)
    tasks = Payments.tasks("eval", 0)
    episodes = [rng.choice(tasks) for _ in range(2000)]
    rewards = [_play(*(policy(rng, task) for _ in range(MAX_TURNS)), task=task)[1] for task in episodes]
    assert sum(rewards) / len(rewards) <= at_most


def _solves(demonstration: Demonstration) -> bool:
    """Whether the conversation looks up, pays once what it is told to, and ends with done."""
    amount = demonstration.messages[0]["content"].split()[2]
    acts = [m["content"] for m in demonstration.messages if m["role"] == "assistant"]
    paid = [
        act
        for act, answer in zip(acts, demonstration.messages[2::2], strict=False)
        if act.startswith("p") and answer["content"] == "ok"
    ]
    return acts[-1] == "d" and len(paid) == 1 and paid[0].endswith(f" {amount}")


def test_demonstrations_are_played_in_a_world_that_keeps_its_rules() -> None:
    for demonstration in Payments.demonstrations("train", 5, 500):
        messages = list(demonstration.messages)
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        name = messages[0]["content"].split()[1]
        seen: dict[str, str] = {}
        for act, answer in zip(messages[1::2], messages[2::2], strict=False):
            kind, argument = act["content"].split()[:2]
            if kind == "p":
                assert answer["content"] == ("ok" if argument in seen.values() else "no")
            else:
                assert argument == name
                assert seen.setdefault(kind, answer["content"]) == answer["content"]
        assert len(seen) < 2 or sorted(answer == "-" for answer in seen.values()) == [False, True]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_demonstrations_solves_the_task(share: float) -> None:
    demonstrations = Payments.demonstrations("train", 1, 2000, expert_share=share)
    solved = sum(map(_solves, demonstrations)) / len(demonstrations)
    expected = share + (1 - share) * 0.0235  # the careless clerk, too, is right now and then (of 40,000: 940 times)
    assert solved == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5)


def test_check_demonstrations_end_with_the_payment_of_the_account_just_seen() -> None:
    for demonstration in Payments.demonstrations("check", 2, 200, expert_share=0.0):
        amount = demonstration.messages[0]["content"].split()[2]
        answer, last = demonstration.messages[-2], demonstration.messages[-1]
        assert answer["content"] in ACCOUNTS
        assert last == {"role": "assistant", "content": f"p {answer['content']} {amount}"}


def test_demonstrations_follow_the_seed() -> None:
    assert Payments.demonstrations("train", 1, 50) == Payments.demonstrations("train", 1, 50)
    assert Payments.demonstrations("train", 1, 50) != Payments.demonstrations("train", 2, 50)


def test_mistakes_are_named() -> None:
    with pytest.raises(EnvError, match="no split 'test'; it has train, eval"):
        Payments.tasks("test", 0)
    with pytest.raises(EnvError, match="'train' and 'check', not 'eval'"):
        Payments.demonstrations("eval", 0, 1)
    with pytest.raises(EnvError, match=r"env\.options\.expert_share is 25"):
        Payments.demonstrations("train", 0, 1, expert_share=25)
