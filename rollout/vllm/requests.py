"""What the engine's thread keeps of each request in flight: the tokens sampled so far, or a probe half done.

Left out: waiting and admission (waiting.py), stepping (loop.py).
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm.v1.engine import EngineCoreOutput

from rlpost.rollout.engine import END_STRIDE, EngineError, ProbeResult, Sample, SampleRequest


class Sampling:
    """One request and what was sampled for it. Kept as vLLM hands it over: this runs once a token."""

    __slots__ = ("_logprobs", "_spans", "_token_ids", "future", "request")

    def __init__(self, request: SampleRequest, future: Future[Sample]) -> None:
        self.request = request
        self.future = future
        self._token_ids: list[int] = []
        self._logprobs: list[Any] = []
        self._spans: list[tuple[int, int]] = []

    def sampled_by(self, version: int) -> None:
        """The tokens from here on are of the weights ``version``: said at the start, and when weights change."""
        self._spans.append((len(self._token_ids), version))

    def absorb(self, output: EngineCoreOutput) -> int:
        """Add the tokens of one engine step; how many they are."""
        new = output.new_token_ids
        self._token_ids += new
        if self.request.logprobs and new:
            assert output.new_logprobs is not None, "vLLM gave a token without its log-probability"
            self._logprobs.append(output.new_logprobs.logprobs)
        return len(new)

    def ended(self) -> bool:
        """Whether the request itself says that it is over, asked every END_STRIDE tokens."""
        ends = self.request.ends
        return len(self._token_ids) % END_STRIDE == 0 and ends is not None and ends(self._token_ids)

    def finish(self, stopped: bool, aborted: bool = False) -> None:
        """Hand over the sample, or an EngineError where the model's output was not a distribution."""
        logprobs = self._all_logprobs()
        versions = np.full(len(self._token_ids), -1, dtype=np.int32)
        for start, version in self._spans:
            versions[start:] = version
        if self.request.logprobs and not np.isfinite(logprobs).all():
            version = versions[-1]
            self.fail(f"the model's log-probabilities are not finite at weights version {version}: training diverged")
            return
        self.future.set_result(
            Sample(
                token_ids=np.array(self._token_ids, dtype=np.int32),
                logprobs=logprobs,
                versions=versions,
                stopped=stopped,
                aborted=aborted,
            )
        )

    def _all_logprobs(self) -> NDArray[np.float32]:
        """(n,) those of the sampled tokens, which vLLM puts first in each row; NaN where they were not asked for."""
        if not self._logprobs:
            return np.full(len(self._token_ids), np.nan, dtype=np.float32)
        return np.concatenate(self._logprobs)[:, 0].astype(np.float32)

    def fail(self, why: str) -> None:
        """End the request with an EngineError that names it."""
        self.future.set_exception(EngineError(f"request '{self.request.id}': {why}"))


class Probe:
    """One probe of several sequences; each sequence is a request of its own."""

    def __init__(self, token_ids: list[list[int]], version: int, future: Future[ProbeResult]) -> None:
        self.future = future
        self._missing = len(token_ids)
        self._result = ProbeResult(
            version,
            fixed_logprobs=[np.empty(0, np.float32)] * len(token_ids),
            sampled_ids=[-1] * len(token_ids),
            sampled_logprobs=[float("nan")] * len(token_ids),
        )

    def absorb(self, index: int, output: EngineCoreOutput) -> None:
        """Take the one output of sequence ``index``; the last one completes the probe."""
        prompt, sampled = output.new_prompt_logprobs_tensors, output.new_logprobs
        assert prompt is not None, "vLLM gave no log-probabilities of the probe's tokens"
        assert sampled is not None, "vLLM gave a token without its log-probability"
        self._result.fixed_logprobs[index] = prompt.logprobs[:, 0].numpy().astype(np.float32)
        self._result.sampled_ids[index] = int(output.new_token_ids[0])
        self._result.sampled_logprobs[index] = float(sampled.logprobs[0, 0])
        self._missing -= 1
        if not self._missing:
            self.future.set_result(self._result)
