"""Scoring responses, and adding grades up, without a model (Sec. 4.1).

===================== ===============================================================================================
:mod:`.scorers`       the scorers that benchmarks share: ``reference`` (the authors' scoring) and ``rule`` (ours)
:mod:`.reference`     the authors' comparison of one answer, as pure functions
:mod:`.short_answer`  answers in words, for golds that are neither letters nor mathematics
:mod:`.units`         items that only count together, such as a question in several orders
:mod:`.positions`     whether verdicts on pairs follow the place of an answer
:mod:`.grading`       records get their grades, by every protocol of their exam
:mod:`.totals`        what the grades of an exam add up to: one number a protocol, with its interval
===================== ===============================================================================================
"""
