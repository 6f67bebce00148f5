"""Tests, laid out like the house."""
