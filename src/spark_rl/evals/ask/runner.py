"""Asking one model all items of one or more exams, a batch at a time, safe to kill (paper Sec. 4.1 and 4.4).

:class:`Examiner` asks an :class:`~spark_rl.evals.ask.exam.Exam` in batches: the model answers, once or several times;
where that is wanted it judges its own first answer (Eq. 10) and, with test-time scaling on, reflects (Eq. 11); the
protocols grade. Every item becomes one :data:`~spark_rl.evals.ask.records.Record`, and all numbers are computed from
records (:mod:`spark_rl.evals.score.totals`).

A batch is the same items whatever was done before, and sampling is seeded by exam and batch, so a run that was killed
and continued writes the records of one that was not, but for ``seconds`` and the last digits of
``verdict_probability``, which the rounding of logits reaches. A kill in the middle of writing a batch leaves its first
records. The others are then asked without them while decoding is greedy, which changes nothing; where
it is not, the batch is asked again as a whole, because each draw depends on all before it.

A request that a server refuses for what it holds (too long, filtered, an image it can't take) becomes a record whose
status is ``refused``, with the server's words: it scores 0, is counted apart and never judged. A run that is continued
keeps it; to ask again, take its row out of the file.

Departures from the authors' scripts: an item whose prompt is too long is counted apart, not counted as wrong; no
answer, an unreadable one and a wrong one are three things; every share comes with its interval.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spark_rl.chat import Prompt, policy_prompt
from spark_rl.config import Config, ImagesConfig
from spark_rl.data.images import open_image
from spark_rl.engine.base import Sampling
from spark_rl.evals.ask.exam import Exam
from spark_rl.evals.ask.records import REFUSED, SKIPPED, Record
from spark_rl.evals.benchmark import Item
from spark_rl.evals.score.grading import Judge, grade
from spark_rl.files import resolved
from spark_rl.inference import Reasoner, Round
from spark_rl.problem import Completion
from spark_rl.rollout import as_read
from spark_rl.seeds import stream_seed
from spark_rl.verify import Verifier

BATCH, MOST = 32, 256
"""Items asked together, and written together once they are graded, at first; then as many as are done, up to the second
number, so that a kill never loses more than half of the work. Items with images, which are in memory meanwhile, stay at
the first."""


@dataclass(frozen=True, slots=True)
class Examiner:
    """One model, ready to be asked whole exams."""

    reasoner: Reasoner
    """``reasoner.config.rounds`` is the number of judge-and-reflect rounds."""
    verifier: Verifier
    max_prompt_tokens: int
    """Items with longer prompts are skipped."""
    settings: str = ""
    """Written into every record: :func:`fingerprint`."""
    samples: int = 1
    """Responses an item."""
    temperature: float | None = None
    """Of these responses; ``None`` is ``reasoner.config.temperature``, which verdicts keep."""
    judges: bool = False
    """Whether the model judges its first answers without any round of reflection too."""
    grader: Judge | None = None
    """Who grades where a protocol wants a language model to."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    """Which images are refused, as in the chat format."""

    @property
    def greedy(self) -> bool:
        """Whether what is said to one item depends on nothing but the item."""
        config = self.reasoner.config
        return not (self._sampling.temperature or config.temperature or (config.rounds and config.reflect_temperature))

    @property
    def _sampling(self) -> Sampling:
        reasoner = self.reasoner
        temperature = reasoner.config.temperature if self.temperature is None else self.temperature
        seed = stream_seed(reasoner.seed, "inference", "answer")
        config = reasoner.config
        return Sampling(
            self.samples, temperature, config.max_new_tokens, seed, repetition_penalty=config.repetition_penalty
        )

    def ask(self, exam: Exam, done: Collection[str] = ()) -> Iterator[list[Record]]:
        """The graded records of the items whose ids are not ``done``, a batch at a time, in order."""
        for number, part in enumerate(parts(exam)):
            batch = exam.items[part]
            left = [item for item in batch if item.problem.id not in done]
            if not left:
                continue
            seed = stream_seed(self.reasoner.seed, "exam", exam.name, number)
            records = self._records(exam, left if self.greedy else batch, seed)
            yield [record for record in records if record["id"] not in done]

    def _records(self, exam: Exam, items: Sequence[Item], seed: int) -> list[Record]:
        started = time.perf_counter()
        one = replace(self, reasoner=replace(self.reasoner, seed=seed))
        chat = one.reasoner.chat
        prompts = [chat.encode(item.problem, item.system) for item in items]
        fits = [len(prompt.token_ids) <= self.max_prompt_tokens for prompt in prompts]
        asked = [(item, prompt) for item, prompt, fit in zip(items, prompts, fits, strict=True) if fit]
        answered = iter(one._answers([item for item, _ in asked], [prompt for _, prompt in asked]))
        records = [
            new_record(self.settings, exam, item) | {
                "prompt": policy_prompt(item.problem, chat.config),
                "system": chat.config.system if item.system is None else item.system,
                "prompt_tokens": len(prompt.token_ids) or None,
                "image_sizes": [list(open_image(image, self.images).size) for image in item.problem.images],
                **(next(answered) if fit else {"status": SKIPPED}),
            }
            for item, prompt, fit in zip(items, prompts, fits, strict=True)
        ]  # fmt: skip
        grade(records, exam, self.verifier, self.grader)
        seconds = (time.perf_counter() - started) / len(records)
        return [record | {"seconds": round(seconds, 4)} for record in records]

    def _answers(self, items: Sequence[Item], prompts: Sequence[Prompt]) -> list[Record]:
        """What the model said to each item and of its own answer."""
        reasoner = self.reasoner
        drawn = reasoner.engine.generate(prompts, self._sampling) if prompts else []
        drawn = as_read(drawn, prompts, reasoner.chat, reasoner.templates.thinking)
        records = [_given(first) | {"samples": [_given(other) for other in others]} for first, *others in drawn]
        answered = [number for number, (first, *_) in enumerate(drawn) if first.finish != "refused"]
        problems = [items[number].problem for number in answered]
        first = [reasoner.round(drawn[number][0].text, drawn[number][0].tokens) for number in answered]
        answering = [records[number] for number in answered]
        if self.judges:
            first = reasoner.judged(problems, first)
            for record, own in zip(answering, first, strict=True):
                record.update(_judged_first(own, record))
        if reasoner.config.scales:
            for record in records:  # what was refused stays so
                record["rounds"] = reasoner.config.rounds
                record["final"] = {name: record[name] for name in (*_answer(None, 0), "error") if name in record} | {
                    "answers": 0
                }
            for record, trace in zip(answering, reasoner.solve(problems, first), strict=True):
                spent = sum(turn.tokens for turn in trace.rounds)
                record.update(_judged_first(trace.rounds[0], record))
                record["final"] = _answer(trace.response, spent) | {"answers": len(trace.rounds)}
        return records


def new_record(settings: str, exam: Exam, item: Item) -> Record:
    """The record of an item that nobody has answered."""
    problem = item.problem
    return {
        "settings": settings, "source": exam.name, "benchmark": exam.benchmark is not None, "id": problem.id,
        "question": problem.question, "prompt": problem.prompt, "system": item.system, "label": problem.answer,
        "alternatives": list(problem.alternatives), "kind": problem.kind, "choices": list(problem.choices),
        "meta": json.loads(json.dumps(item.meta)), "prompt_tokens": None, "images": len(problem.images),
        "image_sizes": [], **_answer(None, 0), "samples": [], **_judged(), "rounds": 0, "final": None,
    }  # fmt: skip


def parts(exam: Exam) -> Iterator[slice]:
    """The items of each batch."""
    sees, start, size = any(item.problem.images for item in exam.items), 0, BATCH
    while start < len(exam.items):
        yield slice(start, start + size)
        start += size
        size = BATCH if sees else min(start, MOST)


def batches(exam: Exam, done: Collection[str] = ()) -> tuple[int, int]:
    """(batches, items) that :meth:`Examiner.ask` has left to do."""
    left = [sum(item.problem.id not in done for item in exam.items[part]) for part in parts(exam)]
    return sum(map(bool, left)), sum(left)


def fingerprint(config: Config, weights: Path | None = None, **asked: Any) -> str:
    """Twelve hex digits that stand for the model and every setting that a record depends on, the items left out."""
    depends = {
        "model": config.model.model_dump(mode="json", exclude={"device", "threads", "gradient_checkpointing"}),
        "weights": None if weights is None else str(resolved(weights)),
        "chat": config.chat.model_dump(mode="json"),
        "inference": config.inference.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json", include={"split", "layout", "columns", "kind", "images"}),
        "templates": config.recycle.templates,
        "max_prompt_tokens": config.rollout.max_prompt_tokens,
        "seed": config.seed,
        "asked": asked,
    }
    if config.decoding_dtype != config.model.dtype:
        depends["decoding"] = config.decoding_dtype
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]


def _answer(response: str | None, tokens: int) -> Record:
    return {
        "response": response, "extracted": None, "status": "no_answer", "reward": 0.0, "tokens": tokens, "grades": {},
    }  # fmt: skip


def _given(completion: Completion) -> Record:
    """What an engine gave, graded by nobody yet."""
    if completion.finish == "refused":
        return _answer(None, 0) | {"status": REFUSED, "error": completion.error}
    return _answer(completion.text, completion.tokens)


def _judged_first(own: Round, record: Record) -> Record:
    """What the model thinks of the first answer, if it was asked."""
    return _judged(own.judgement, own.accepted, own.tokens - record["tokens"], own.probability)


def _judged(
    judgement: str | None = None, accepted: bool | None = None, tokens: int = 0, probability: float | None = None
) -> Record:
    return {
        "judgement": judgement, "accepted": accepted, "judge_tokens": tokens, "verdict_probability": probability
    }  # fmt: skip
