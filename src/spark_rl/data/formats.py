r"""Answer formats that a question brings along, taken off: one is asked for, and it is ``\boxed{}`` (A.2, Fig. 5).

Many sets were made for one trainer and ask for its format inside the question: ``The last line of your response should
be of the form Answer: $Answer``, ``put your final answer within \boxed{}``, ``<answer>`` tags, ``####``, JSON. The
policy turn (``chat.policy``) asks for a box, which is all that the verifier reads; a model that is asked for two
formats obeys one of them. So what the data asks is taken off, and said once for each source.

A sentence goes if it tells how to give the answer and names something to put it in: an empty box, ``Answer:``, tags,
``####``, JSON. Only whole sentences at the beginning or the end of the question go, or on lines of their own, together
with ``Let's think step by step`` and its kin beside them. What form the answer itself takes (``as a fraction``, ``of
the form m/n``) is the question's own business, and stays.
"""

from __future__ import annotations

import re

from spark_rl.data.values import MARKER

_ANSWER = re.compile(
    r"answer|solution|result|response|output|respuesta|réponse|antwort|risposta|resposta|ответ|答|结果|結果",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"""\\{1,2}f?boxed?(?:
        \s?\{{1,2}\s*                                   # an empty box, or one with a word for what goes into it
        (?:\.\.\.|\\[lc]?dots|[?_]*|(?:(?:the|your|final|my)\s)*(?:answer|result|solution)|答案)
        \s*\}{1,2}
        |(?![A-Za-z{]))                                 # or the command alone
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VERBS = (
    r"(?:put|write|give|output|provide|enclose|wrap|end|finish|place|present|return|state|report|format|remember|respond"
    r"|reply|conclude|repeat|include|box|display|print|express|use|submit|show|answer with|make sure)\b"
)
_ASKS = re.compile(
    rf"(?:(?:then|finally|also|and|lastly|afterwards|at the end|in the end|after that),? )*{_VERBS}"
    r"|.*?\b(?:please|you|your|let['’]?s|let us|should|must"
    r"|(?:is|are) (?:to be )?(?:enclosed|formatted|wrapped|written))\b",
    re.IGNORECASE | re.DOTALL,
)
"""Speaks to the reader, by an imperative or by name: a story in which somebody writes an answer is a question."""
_HOLDERS = re.compile(
    r"""\banswer\s?:|\#\#\#\#|\bjson\b|\banswer\ is\b['"\s:]
        |\b(?:last|final)\ line\b|\bown\ line\b|\[\[|\*\*\s?(?:final\ )?answer|\boptions?['’]s?\ letter\b
        |\bbox\ (?:your|the)\ (?:final\ )?answer\b|\b(?:answer|result)\ (?:with)?in\ (?:a|the)\ box\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TAGS = re.compile(r"</(?:answer|think|thinking|reasoning|solution)>", re.IGNORECASE)
_CUE = re.compile(
    r"""(?:(?:please|first|now|then|you\ should|you\ must|let['’]?s|let\ us|kindly|carefully)\s)*
        (?:solve|answer|think|reason|work|consider)
        (?:\ (?:it|this|about\ it|through\ it
           |the\ (?:following|given|below)?\ ?[a-z\ ]{0,40}?(?:problem|question|exercise)s?))?
        (?:\ (?:out|through|efficiently\ and\ clearly|carefully))?
        (?:,?\ ?(?:step[\ -]by[\ -]step|carefully))?[.:!]?
        |(?:here|below)\ is\ (?:a|the|your)\ (?:[a-z]+\ )?(?:question|problem)[.:]?
        |(?:you|the\ assistant)\ (?:(?:should|must|will)\ )?(?:first\ )?thinks?\ about\ [a-z\ ]{1,80}
        \ and\ then\ provides?\ (?:the\ user\ with\ )?(?:the|your)\ (?:final\ )?answer\.?
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What stands beside such an instruction and goes with it."""
_LABELS = re.compile(
    r"(?:question|problem|the question|the problem|here is the (?:question|problem))\s?[:：]\s*", re.IGNORECASE
)
_CALL = re.compile(r"(?:final )?(?:answer|solution|response)\s?[:：]", re.IGNORECASE)
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?]['\"”’)*]*(?=\s+[A-Z\\<(\"'“]|\s*$|\s*\n)|[。！？]|\n|\Z)\s*", re.DOTALL)
_MOST = 8
"""Sentences looked at from either end."""
_LONGEST = 600
"""Characters of a sentence that may be an instruction."""


def without_format(question: str) -> tuple[str, str]:
    """(the question without the answer formats that it asks for, the first of what was taken off or an empty text)."""
    if len(question) > 200_000:
        return question, ""
    taken: list[str] = []
    rest = _tail(_head(_lines(question, taken), taken), taken)
    if taken and not rest.strip():
        return question, ""
    before, call = _called(rest)
    if call and not taken:
        taken.append(call)
    if taken:
        rest = _LABELS.sub("", before, count=1) if _LABELS.match(before.lstrip()) else before
    return (rest.strip(), " ".join(taken[0].split())) if taken else (question, "")


def _called(text: str) -> tuple[str, str]:
    """(the text without a last line ``Answer:``, that line or an empty text)."""
    before, line_break, last = text.rstrip().rpartition("\n")
    return (before.rstrip(), last.strip()) if line_break and _CALL.fullmatch(last.strip()) else (text, "")


def asks_format(sentence: str) -> bool:
    """Whether a sentence tells what to put the answer into."""
    text = sentence.strip()
    if len(text) > _LONGEST or text.endswith(("?", "？")) or MARKER in text:
        return False
    if _TAGS.search(text) is not None:  # tags hold reasoning too
        return _ASKS.match(text) is not None
    if _ANSWER.search(text) is None:
        return False
    return _BOX.search(text) is not None or (_ASKS.match(text) is not None and _HOLDERS.search(text) is not None)


def sentences(text: str) -> list[str]:
    """The text cut behind its sentences and lines; together they are the text."""
    return [found[0] for found in _SENTENCE.finditer(text) if found[0]]


def _head(text: str, taken: list[str]) -> str:
    """Without the instructions that it begins with, cues before and between them included."""
    pieces = sentences(text[: 4 * _LONGEST])
    gone = 0
    for at, piece in enumerate(pieces[:_MOST]):
        if asks_format(piece):
            taken.append(piece.strip())
            gone = at + 1
        elif not _is_cue(piece):
            break
    while gone and gone < len(pieces) and _is_cue(pieces[gone]):
        gone += 1
    return text[sum(map(len, pieces[:gone])) :]


def _tail(text: str, taken: list[str]) -> str:
    """Without the instructions that it ends with."""
    start = max(0, len(text) - 4 * _LONGEST)
    pieces = sentences(text[start:])
    kept = len(pieces)
    for at in range(len(pieces) - 1, max(-1, len(pieces) - 1 - _MOST), -1):
        if asks_format(pieces[at]):
            taken.append(pieces[at].strip())
            kept = at
        elif not _is_cue(pieces[at]):
            break
    while kept < len(pieces) and kept and _is_cue(pieces[kept - 1]):
        kept -= 1
    return text[: start + sum(map(len, pieces[:kept]))].rstrip() if kept < len(pieces) else text


def _lines(text: str, taken: list[str]) -> str:
    """Without the lines that are nothing but instructions."""
    if "\n" not in text:
        return text
    kept = []
    for line in text.split("\n"):
        pieces = sentences(line) if len(line) <= 4 * _LONGEST else []
        asked = [piece for piece in pieces if asks_format(piece)]
        if asked and all(asks_format(piece) or _is_cue(piece) for piece in pieces):
            taken.append(asked[0].strip())
        else:
            kept.append(line)
    return "\n".join(kept)


def _is_cue(piece: str) -> bool:
    text = piece.strip()
    return not text or (len(text) < 160 and _CUE.fullmatch(text) is not None)
