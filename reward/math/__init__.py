r"""Mathematical answers: whether a text comes to the reference answer.

``extract`` finds the answer in a text, ``normalise``, ``units``, ``expression`` and ``values`` read it, ``compare``
says when two are the same; ``judge`` is all of these, run by ``child`` in a process of its own with SymPy and
math-verify's parser. Left out: proofs, and answers that are sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlpost.reward.math import child
from rlpost.reward.math.reference import accepted, references_of
from rlpost.reward.score import RewardError, Score, checked_by

_LONGEST_ANSWER = 200  # characters kept of what was found, for the log and for majority votes
_BATCH = 500


def verify(answer: str, gold: object, mode: str = "any") -> bool:
    r"""Whether ``answer`` comes to ``gold``.

    An answer whose judgement takes more than 5 s or 1 GiB is wrong. Any thread may call it.

    Args:
        answer: the model's whole text; ``extract`` says where its answer stands.
        gold: the reference: LaTeX or plain text, a number, a solution that ends in a box, ``####``, ``<answer>`` or
            "The answer is", or a list of references of which any is accepted.
        mode: ``any``; ``boxed``: an answer is in a ``\boxed{...}`` or there is none; ``marked``: after ``####``.

    Raises:
        RewardError: ``gold`` is empty or no answer.
        SandboxError: the child cannot be started.
    """
    return _judged(answer, gold, mode).solved


def check(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows by which nothing can be judged; meant to be asked before training.

    Raises:
        RewardError: names the first such row, why, and how many there are.
    """
    _refuse([references_of(task, "answer", "solution") for task in tasks])


def check_gsm8k(tasks: Sequence[Mapping[str, Any]]) -> None:
    """The same for ``gsm8k``'s rows.

    Raises:
        RewardError: as ``check``, and for a row without the mark.
    """
    _refuse([(_after_mark(task),) for task in tasks])


@checked_by(check)
def score(completion: str, task: Mapping[str, Any]) -> Score:
    """1 where the completion comes to the reference in column ``answer`` (or else ``solution``), 0 elsewhere.

    ``parts``: ``unjudged`` is 1 where judging was given up; ``as_text`` is there, and 1, where the reference could not
    be read as mathematics and was compared as a text.

    Raises:
        RewardError: neither column is there, or holds a reference.
    """
    return _judged(completion, references_of(task, "answer", "solution"), "any")


@checked_by(check)
def boxed(completion: str, task: Mapping[str, Any]) -> Score:
    r"""As ``score``, but only a ``\boxed{...}`` is an answer."""
    return _judged(completion, references_of(task, "answer", "solution"), "boxed")


@checked_by(check)
def marked(completion: str, task: Mapping[str, Any]) -> Score:
    """As ``score``, but only a line that starts with ``####`` is an answer."""
    return _judged(completion, references_of(task, "answer", "solution"), "marked")


@checked_by(check_gsm8k)
def gsm8k(completion: str, task: Mapping[str, Any]) -> Score:
    """As ``score``, for GSM8K's rows: their ``answer`` is a worked solution with the number after ``####``.

    Raises:
        RewardError: there is no such column or no such mark.
    """
    return _judged(completion, _after_mark(task), "any")


def _after_mark(task: Mapping[str, Any]) -> str:
    (solution,) = references_of(task, "answer")[:1]
    _, mark, number = solution.rpartition("####")
    if not mark or not number.strip():
        raise RewardError(f"column 'answer' has no '####', as GSM8K's has: {solution[:80]!r}")
    return number.strip()


def _judged(answer: str, gold: object, mode: str = "any") -> Score:
    references = accepted(gold)
    found = child.judged(answer, references, mode)
    if found.problem:
        raise RewardError(f"no answer can be judged by the reference {references[0][:200]!r}: {found.problem}")
    parts = {"unjudged": float(found.gave_up)} | ({"as_text": 1.0} if found.as_text else {})
    return Score(float(found.right), parts, answer=found.name[:_LONGEST_ANSWER])


def _refuse(rows: Sequence[tuple[str, ...]]) -> None:
    """Ask the child about every reference that is not a plain number."""
    asked = [(number, text) for number, texts in enumerate(rows) for text in texts if not _is_plain_number(text)]
    bad: list[tuple[int, str, str]] = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        said = child.problems([text for _, text in batch])
        bad += [(number, text, why) for (number, text), why in zip(batch, said, strict=True) if why]
    if bad:
        number, text, why = bad[0]
        raise RewardError(
            f"row {number}: no answer can be judged by the reference {text[:200]!r}: {why} ({len(bad)} of {len(rows)} "
            "rows are like this; leave them out, or name the column that holds the answer 'answer')"
        )


def _is_plain_number(text: str) -> bool:
    return text.lstrip("-").replace(",", "").replace(".", "", 1).isdecimal()
