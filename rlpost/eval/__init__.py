"""Evaluation on benchmarks: which questions are asked how, who answers them, what the answers come to.

Left out: verifying an answer (reward/), playing an episode (rollout/), and evaluation inside a training run
(rlpost/evaluate.py).
"""
