"""Errands: a small world of everyday apps, compatible with AppWorld, that needs no download.

A supervisor has a phone, a wallet, a music library and notes; a task asks for something to be done in them, and is
judged by what has changed. Sixteen kinds of scenario over three difficulties, each with three variants a scenario; the
Python and HTTP surfaces and the error messages are those of AppWorld. Of AppWorld itself nothing is here: apps, tasks
and data are our own. Left out: episodes (envs/appworld.py), and anything that is not about one world.
"""
