"""Evaluation: a model is asked questions, its responses are scored, and the scores are laid out (paper Sec. 4).

=============================== =====================================================================================
:mod:`.benchmark`               what a benchmark is: items, protocols that score responses, how scores add up
:mod:`.benchmarks`              the benchmarks of the paper, one module each
:mod:`.ask`                     a model is asked the items of an exam; the records that keep what it said
:mod:`.score`                   scorers that benchmarks share, and what the grades of an exam add up to
:mod:`.paper`                   the paper's Tables 1 to 6: its published numbers, and one's own in the same layout
:mod:`.judge_accuracy`          how well a model judges (Fig. 4): its own answers, and pairs in both orders
:mod:`.heldout`                 the numbers before, during and after training, on problems never trained on
=============================== =====================================================================================

``spark-rl eval`` goes from left to right: ``benchmarks`` -> ``ask`` -> ``score`` -> ``paper``. Three kinds of rows have
a name each: an :class:`~spark_rl.evals.benchmarks.entries.Entry` is a row of a benchmark's file, a
:data:`~spark_rl.evals.ask.records.Record` is a row of ``rows.jsonl``, a :data:`~spark_rl.data.values.Row` is a row of a
training file.
"""
