"""Code rewards: run what the model wrote against tests that it can neither see nor fake.

``check`` takes a program and tests; ``reward`` takes a completion and a row of HumanEval's, MBPP's or a like shape.
Left out: other languages, and tests by standard input and output.
"""

from rlpost.reward.code.check import Ending, Verdict, check
from rlpost.reward.code.rows import extract_code, reward

__all__ = ["Ending", "Verdict", "check", "extract_code", "reward"]
