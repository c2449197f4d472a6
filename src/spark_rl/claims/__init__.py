"""The paper's claims, run and decided: ``spark-rl claims`` (docs/claims.md).

:mod:`.catalogue` says what each claim compares, :mod:`.run` makes the runs that it takes and decides, :mod:`.measures`
and :mod:`.bootstrap` are the arithmetic, :mod:`.page` writes it down.
"""
