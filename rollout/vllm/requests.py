"""What the engine's thread keeps of each request in flight: the tokens sampled so far, or a probe half done.

Left out: waiting, admission and stepping (loop.py).
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
from vllm.v1.engine import EngineCoreOutput

from rollout.engine import END_STRIDE, EngineError, ProbeResult, Sample, SampleRequest


class Sampling:
    """One request and what was sampled for it. Versions are kept a token: weights may change under way."""

    __slots__ = ("_logprobs", "_token_ids", "_versions", "future", "request")

    def __init__(self, request: SampleRequest, future: Future[Sample]) -> None:
        self.request = request
        self.future = future
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._versions: list[int] = []

    def absorb(self, output: EngineCoreOutput, version: int) -> int:
        """Add the tokens of one engine step, sampled by ``version``; how many they are."""
        new = output.new_token_ids
        if new:
            self._token_ids.extend(new)
            if self.request.logprobs:
                assert output.new_logprobs is not None, "vLLM gave a token without its log-probability"
                self._logprobs.extend(sampled_logprobs(output))
            self._versions.extend([version] * len(new))
        return len(new)

    def ended(self) -> bool:
        """Whether the request itself says that it is over, asked every END_STRIDE tokens."""
        ends = self.request.ends
        return ends is not None and len(self._token_ids) % END_STRIDE == 0 and ends(self._token_ids)

    def finish(self, stopped: bool, aborted: bool = False) -> None:
        """Hand over the sample, or an EngineError where the model's output was not a distribution."""
        count = len(self._token_ids)
        logprobs = np.array(self._logprobs if self.request.logprobs else [np.nan] * count, dtype=np.float32)
        if self.request.logprobs and not np.isfinite(logprobs).all():
            version = self._versions[-1]
            self.fail(f"the model's log-probabilities are not finite at weights version {version}: training diverged")
            return
        self.future.set_result(
            Sample(
                token_ids=np.array(self._token_ids, dtype=np.int32),
                logprobs=logprobs,
                versions=np.array(self._versions, dtype=np.int32),
                stopped=stopped,
                aborted=aborted,
            )
        )

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
        prompt = output.new_prompt_logprobs_tensors
        assert prompt is not None, "vLLM gave no log-probabilities of the probe's tokens"
        self._result.fixed_logprobs[index] = prompt.logprobs[:, 0].numpy().astype(np.float32)
        self._result.sampled_ids[index] = int(output.new_token_ids[0])
        self._result.sampled_logprobs[index] = sampled_logprobs(output)[0]
        self._missing -= 1
        if not self._missing:
            self.future.set_result(self._result)


def sampled_logprobs(output: EngineCoreOutput) -> list[float]:
    """Log-probability of each new token; vLLM puts the sampled token's first."""
    logprobs: Any = output.new_logprobs
    return logprobs.logprobs[:, 0].tolist()
