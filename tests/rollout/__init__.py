"""Tests of the rollout floor."""
