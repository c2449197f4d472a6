"""What models said, as HTML for the page.

Every text of a model, a user or a data set goes through :func:`_text`, which leaves no markup in it: it is shown as it
is, never rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from spark_rl.demo.ask import Attempt, Comparison
from spark_rl.errors import plain
from spark_rl.inference import Round
from spark_rl.problem import Problem, Verdict


def _text(text: str) -> str:
    """Untrusted text: controls and changes of direction as escapes, markup as what it looks like."""
    return escape(plain(text))


def note(text: str = "") -> str:
    """A line about something that can't be done."""
    return f'<p class="spark-note" role="alert">{_text(" ".join(text.split()))}</p>' if text else ""


def attempts(found: Sequence[Attempt], problem: Problem | None = None, verdicts: Sequence[Verdict] = ()) -> str:
    """Models side by side, each with its rounds.

    Args:
        found: one attempt a model.
        problem: with its gold answer, which is shown once ``verdicts`` are there.
        verdicts: of the final answers, one a model.
    """
    columns = "".join(_attempt(one, place, problem, verdicts) for place, one in enumerate(found))
    return f'<div class="spark-columns">{columns}</div>'


def _attempt(one: Attempt, place: int, problem: Problem | None, verdicts: Sequence[Verdict]) -> str:
    parts = [f"<h3>{_text(one.model)}</h3>"]
    rounds = one.trace.rounds if one.trace is not None else ()
    parts += [_round(turn, number) for number, turn in enumerate(rounds)]
    accepted = bool(rounds) and bool(rounds[-1].accepted)
    if not one.ended and not accepted:
        doing = "answering" if not rounds else "judging" if rounds[-1].judgement is None else "reflecting"
        parts.append(f'<p class="spark-wait" role="status">{doing} …</p>')
    if one.ended and one.trace is not None:
        final = one.trace.answer
        said = f"<code>{_text(final)}</code>" if final is not None else "none that can be read"
        parts.append(f'<p class="spark-final">Final answer: {said}</p>')
    if problem is not None and place < len(verdicts):
        parts.append(_gold(problem, verdicts[place]))
    return f'<section class="spark-model">{"".join(parts)}</section>'


def _round(turn: Round, number: int) -> str:
    title = f"Reflection {number}" if number else "Answer"
    boxed = f"<code>{_text(turn.answer)}</code>" if turn.answer is not None else "no answer that can be read"
    judged = ""
    if turn.judgement is not None:
        said = {True: "accepts", False: "rejects", None: "says nothing that can be read"}[turn.accepted]
        judged = _judged(f"Judge {said}", turn.accepted, turn.probability, turn.judgement)
    return (
        f'<article class="spark-round"><h4>{title}<span class="spark-boxed">{boxed}</span></h4>'
        f"<pre>{_text(turn.response)}</pre>{judged}</article>"
    )


def _judged(title: str, good: bool | None, probability: float | None, judgement: str) -> str:
    """A verdict with P(Yes), where it is known, and its words."""
    kind = {True: "yes", False: "no", None: "open"}[good]
    meter = ""
    if probability is not None:
        percent = 100 * min(1.0, max(0.0, probability))
        meter = (
            f'<span class="spark-p">P(Yes) {probability:.3f}</span><span class="spark-bar" aria-hidden="true">'
            f'<span style="width:{percent:.1f}%"></span></span>'
        )
    return (
        f'<div class="spark-verdict spark-{kind}"><p><strong>{_text(title)}</strong>{meter}</p>'
        f"<pre>{_text(judgement)}</pre></div>"
    )


def _gold(problem: Problem, verdict: Verdict) -> str:
    right = verdict.reward > 0
    said = "right" if right else {"timeout": "not compared in time"}.get(verdict.status, "wrong")
    golds = " or ".join(f"<code>{_text(gold)}</code>" for gold in problem.golds)
    kind = "yes" if right else "no"
    return f'<p class="spark-gold spark-{kind}">Gold answer: {golds}<strong>{said}</strong></p>'


def comparison(found: Comparison) -> str:
    """What a model says of one response or two."""
    parts = []
    for name, (text, accepted, _, probability) in zip("AB", found.opinions, strict=False):
        said = {True: "is right", False: "is wrong", None: "has no verdict that can be read"}[accepted]
        parts.append(_judged(f"Alone, {name} {said}", accepted, probability, text))
    for order, (text, verdict) in zip(("A before B", "B before A"), found.orders, strict=False):
        said = "no verdict that can be read" if verdict is None else f"{verdict} is better"
        parts.append(_judged(f"{order}: {said}", None if verdict is None else True, None, text))
    if not found.ended:
        doing = "judging each alone" if not found.opinions else "comparing"
        parts.append(f'<p class="spark-wait" role="status">{doing} …</p>')
    elif len(found.orders) == 2:
        last = "the two orders do not agree" if found.better is None else f"{found.better}, in both orders"
        parts.append(f'<p class="spark-final">Better: {last}</p>')
    return f'<section class="spark-model">{"".join(parts)}</section>'
