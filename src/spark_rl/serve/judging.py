"""Replies of ``/v1/judge``: what the model thinks of responses, alone (Eq. 10) or in pairs (Eq. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spark_rl.inference import TURNED, Reasoner
from spark_rl.problem import Problem
from spark_rl.serve.backend import Backend, settings
from spark_rl.serve.protocol import JudgeItem, JudgeRequest


async def judge(backend: Backend, request: JudgeRequest) -> dict[str, Any]:
    """What the model thinks of responses: of one whether it is right, of two which is, asked in both orders."""
    wanted = settings(
        backend, request.temperature, request.max_tokens, several=request.judgements > 1,
        judgements=request.judgements, select="last", samples=1,
    )  # fmt: skip
    items = request.asked()
    problems = [Problem(id="judged", question=one.question, answer="", images=tuple(one.images)) for one in items]

    def work(reasoner: Reasoner) -> list[dict[str, Any]]:
        seed = reasoner.seed if request.seed is None else request.seed
        return _judged(replace(reasoner, config=wanted, seed=seed), items, problems)

    data, spent = await backend.think(work)
    return {"object": "judgements", "model": backend.name, "data": data, "usage": spent.usage}


def _judged(reasoner: Reasoner, items: Sequence[JudgeItem], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in items]
    single = [i for i, item in enumerate(items) if item.other is None]
    opinions = reasoner.judge([problems[i] for i in single], [items[i].response for i in single])
    for i, (text, accepted, _, chance) in zip(single, opinions, strict=True):
        verdict = None if accepted is None else "Yes" if accepted else "No"
        reward = chance if chance is not None else float(bool(accepted))
        rows[i] = {"index": i, "verdict": verdict, "probability": chance, "reward": reward, "judgement": text}
    pairs = [(i, item.response, item.other) for i, item in enumerate(items) if item.other is not None]
    turned = [(one, other) for _, one, other in pairs], [(other, one) for _, one, other in pairs]
    asked = [problems[i] for i, _, _ in pairs]
    orders = [reasoner.compare(asked, order) for order in turned]
    for (i, _, _), (text, verdict, _), (text_b, verdict_b, _) in zip(pairs, *orders, strict=True):
        back = TURNED[verdict_b]
        said = [one for one in (verdict, back) if one is not None]
        agreed = verdict if verdict == back else None
        reward = sum(one == "A" for one in said) / len(said) if said else 0.5
        rows[i] = {
            "index": i, "verdict": agreed, "reward": reward,
            "orders": [{"first": "response", "verdict": verdict, "judgement": text},
                       {"first": "other", "verdict": back, "judgement": text_b}],
        }  # fmt: skip
    return rows
