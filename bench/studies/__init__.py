"""Questions about batch norm in training, each answered by trainings: one file a study.

`pytest bench/studies --benchmark-only` runs them all, `-k NAME` one. They are no part of `pytest bench/`.
"""
