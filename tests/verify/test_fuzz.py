"""Generated pairs of known truth: no false reward, hardly a false refusal (large: ``benchmarks/verifier_fuzz.py``)."""

from __future__ import annotations

import pytest
from answer_pairs import KINDS
from verifier_fuzz import REFUSALS, faults, pairs_of

from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier


@pytest.mark.parametrize("seed", [1, 2])
def test_no_unequal_pair_is_right_and_hardly_an_equal_one_is_wrong(seed: int) -> None:
    pairs = pairs_of(900, seed)
    with Verifier(VerifyConfig(workers=2)) as verifier:
        rewards, refusals = faults(pairs, verifier)
    assert rewards == []
    assert len(refusals) <= REFUSALS * sum(pair.equal for pair in pairs), refusals


def test_every_kind_is_drawn_equal_and_unequal_and_by_the_seed_alone() -> None:
    pairs = pairs_of(2 * len(KINDS), 3)
    assert {(pair.kind, pair.equal) for pair in pairs} == {(kind, equal) for kind in KINDS for equal in (True, False)}
    assert pairs == pairs_of(2 * len(KINDS), 3)
    assert pairs != pairs_of(2 * len(KINDS), 4)
    assert all(pair.gold != pair.answer for pair in pairs if not pair.equal)
