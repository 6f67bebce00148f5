"""What environments of a single answer share.

Left out: where the prompt comes from, and who judges the answer (a subclass says both).
"""

from __future__ import annotations

from rlpost.envs.base import Env, Observation


class OneAnswer(Env):
    """An environment whose episode is a single answer; a subclass gives the prompt and the score.

    Attributes:
        answer: what the model wrote, without its stop token; empty before it did.
    """

    answer = ""

    def step(self, text: str) -> Observation:
        """Keep the answer; the episode is over."""
        self.answer = text
        return Observation("", done=True)
