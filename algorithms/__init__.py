"""Algorithms: advantages, selection, loss. Pure functions of arrays; knows torch and the trajectory record only."""
