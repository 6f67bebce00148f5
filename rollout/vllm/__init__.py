"""vLLM as an engine. The only part of the house that imports vllm."""
