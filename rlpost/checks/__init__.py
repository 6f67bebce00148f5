"""The checks of ``rlpost doctor``, one file a subject. Left out: running and showing them (rlpost/doctor.py)."""
