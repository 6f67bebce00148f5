"""Code rewards: run what the model wrote against tests that it can neither see nor fake.

``check`` takes a program and tests; ``reward`` takes a completion and a row of HumanEval's, MBPP's, KodCode's, APPS' or
a like shape; ``examine`` refuses rows whose tests pay for nothing. Left out: other languages.
"""

from rlpost.reward.code.check import Ending, Verdict, check
from rlpost.reward.code.extract import extract_code
from rlpost.reward.code.rows import examine, reward

__all__ = ["Ending", "Verdict", "check", "examine", "extract_code", "reward"]
