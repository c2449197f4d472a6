"""The Brier term on a verdict (RLCR, Damani et al. 2025, arXiv 2507.16806, Eq. 2): it pays to state the chance that one
really has of being right.

RLCR's reward is correctness less (q - correctness)^2, q the confidence that the model writes down. Given what is
answered, the expected term is smallest where q is the chance of being right.

Departures: q is not written but is the probability of the verdict's own token; a response without a readable verdict
counts as sure and wrong, or it would pay to say nothing.
"""

from __future__ import annotations

from spark_rl.problem import Verdict


def brier_loss(verdict: Verdict, probability: float | None) -> float:
    """(p - right)^2, from 0 to 1.

    Args:
        verdict: what the verifier says of the judgement: ``correct`` where it names the label.
        probability: p, the model's own of the verdict that it gave; ``None`` where none can be read.
    """
    if probability is None:
        return 1.0
    return (probability - (verdict.status == "correct")) ** 2
