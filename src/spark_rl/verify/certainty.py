r"""How sure a judge is of its verdict: the probability of Yes against No where it writes the one or the other.

A judge works first and then writes ``\boxed{Yes}``. Given its work, the first token of the verdict is where Yes and No
part, and

    P(Yes) = p(Yes) / (p(Yes) + p(No)),

p being the probability of all tokens there with which the label begins (``Yes``, ``Y``, `` yes``). It needs what an
engine tells of that place (:attr:`spark_rl.problem.Completion.top`); where that is the sampled token alone, or the
likeliest tokens do not hold the other label, the rest of the probability stands for the other label.

Sources: P(True) of Kadavath et al. 2022 (arXiv 2207.05221), the generative verifier of Zhang et al. 2024
(arXiv 2408.15240).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from spark_rl.config import THINKING, Thinking
from spark_rl.problem import Place
from spark_rl.verify.boxed import answer_part, extract_boxed
from spark_rl.verify.verdict import YES_NO, Labels, read_label

_WORD = re.compile(
    r"(?<![A-Za-z])(?:not|isn't|yes|correct|right|true|no|incorrect|wrong|false)(?![A-Za-z])", re.IGNORECASE
)
"""What says Yes or No where a box does not hold the label itself."""


def verdict_probability(
    places: Sequence[Place], labels: Labels = YES_NO, thinking: Thinking = THINKING
) -> tuple[str, float] | None:
    r"""The verdict of a judgement, spelled as in ``labels``, and its probability against the other label, 0 to 1.

    With ``\boxed{`` and ``}`` around ``(("Yes", log 0.6), ("No", log 0.2), ("?", log 0.1))`` it is ``("Yes", 0.75)``.

    Args:
        places: (T,) tokens of the judgement as text, each with the likeliest others, as far as they are known.
        labels: the two verdicts there are.
        thinking: tags between which a box is none.

    Returns:
        ``None`` if there is no verdict to read.
    """
    texts = [place[0][0] for place in places]
    joined = "".join(texts)
    content = extract_boxed(answer_part(joined, thinking))
    said = None if content is None else read_label(content, labels)
    begin = -1 if content is None else joined.rfind("{" + content + "}") + 1
    if content is None or said is None or begin < 1:
        return None
    literal = re.search(rf"(?<![A-Za-z]){said}(?![A-Za-z])", content, re.IGNORECASE)
    word = literal or _WORD.search(content)
    if word is None:
        return None
    start = begin + word.start()
    ends = list(accumulate(map(len, texts)))
    at = bisect_right(ends, start)
    (text, sampled), *others = places[at]
    lead, other = text[: start - ends[at] + len(text)], next(label for label in labels if label != said)
    mine, theirs, listed = math.exp(sampled), 0.0, math.exp(sampled)
    for piece, logprob in others if literal else ():
        listed += math.exp(logprob)
        if _begins(piece, lead, said):
            mine += math.exp(logprob)
        elif _begins(piece, lead, other):
            theirs += math.exp(logprob)
    theirs = theirs or max(0.0, 1 - listed)
    return said, mine / (mine + theirs)


def _begins(piece: str, lead: str, label: str) -> bool:
    """Whether a token, behind what it has in common with the one that was sampled, is a label's beginning or whole."""
    if lead.strip() and not piece.startswith(lead):
        return False
    rest, label = piece.removeprefix(lead).strip().casefold(), label.casefold()
    if not rest:
        return False
    return label.startswith(rest) or (rest.startswith(label) and not rest[len(label)].isalpha())
