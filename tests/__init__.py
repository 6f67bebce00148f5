"""Tests, laid out like the layers."""
