"""vLLM as an engine. The only package that imports vllm."""
