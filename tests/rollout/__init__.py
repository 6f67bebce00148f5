"""Tests of the rollout layer."""
