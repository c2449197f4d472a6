r"""The authors' scoring of one answer as pure functions (specification Sec. 0.2 and 7.1; ``calculate_acc.py`` of
https://github.com/InternLM/Spark).

The answer is the *first* box. It is right if any of these says so:

1. both sides are the same number or string after the clean-up of the MATH data set, which removes all commas, so that
   ``1,2`` equals ``12``;
2. math-verify finds them equal, read without ``$``, so that most LaTeX is not recognised: ``2\sqrt{3}`` is read as 2;
3. they are the same string after the clean-up of Minerva (Lewkowycz et al. 2022, appendix D), which removes words such
   as ``cm``; never if one side has more than 128 characters and is repetitive;
4. they are the same string.

Departures: step 3 first asks sympy's LaTeX parser, which raises on everything with the versions that the authors pin,
and is left out; math-verify is 0.9, not 0.5.2, with the same verdicts on the specification's golden table; a comparison
that must be killed is counted as ``timeout``, not as wrong.
"""

from __future__ import annotations

import re

from spark_rl.problem import Status

REPETITIVE_LENGTH = 128
"""Shorter strings are never called repetitive."""
REPETITIVE_SHARE = 0.2
"""A string is repetitive if more than this share of its substrings occurred before in it."""

_BOX = r"\boxed{"

_MATH_DROPPED = (r"\left", r"\right", r"^{\circ}", r"^\circ", r"\$", "$", ",")
_MINERVA_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), (r"\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
    (r",\text{and}", ","), (r"\text{and}", ","), (r"\text{m}", r"\text{}"),
)  # fmt: skip
_MINERVA_DROPPED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", r"\ldots", "sue", "points",
    "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "childrentickets", "multiples", r"\text{s}", r"\text{.}", "\\text{\ns}", r"\text{}^2", r"\text{}^3", "\\text{\n}",
    r"\text{}", r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', r"\dots",
)  # fmt: skip
_MINERVA_WRAPPERS = tuple(re.compile(rf"\\{name}\{{([^}}\n]*+)\}}") for name in ("text", "textbf", "overline"))
_MINERVA_BOXED = re.compile(r"\\boxed\{(.*)\}")
_BARE_FRACTION = re.compile(r"frac([^{])(.)")
_BARE_ROOT = re.compile(r"sqrt([^{])")


class _MalformedError(ValueError):
    """Text on which the clean-up of MATH gives up."""


def first_box(response: str) -> str | None:
    r"""The stripped content of the first ``\boxed{``, to the end of the text if it never closes; ``None`` if empty."""
    start = response.find(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    end = len(response)
    for brace in re.finditer("[{}]", response[start:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            end = start + brace.start()
            break
    return response[start:end].strip() or None


def is_correct(answer: str, gold: str) -> bool:
    """All four steps. May hang or exhaust memory on hostile text: call it where it can be killed."""
    return same_text(answer, gold) or same_to_math_verify(answer, gold)


def same_text(answer: str, gold: str) -> bool:
    """Steps 1, 3 and 4: quadratic in the length at worst, and without any library."""
    return answer == gold or _same_for_math(answer, gold) or _same_for_minerva(answer, gold)


def same_to_math_verify(answer: str, gold: str) -> bool:
    """Step 2, the prediction in the place of the gold as the authors have it. Only a worker process should call it."""
    from math_verify import parse, verify  # noqa: PLC0415  # loads sympy, which only the workers may

    return bool(verify(parse(answer, parsing_timeout=None), parse(gold, parsing_timeout=None), timeout_seconds=None))


def compare(gold: str, answer: str) -> Status:
    """:func:`is_correct` in the form of the verifier's named comparisons."""
    return "correct" if is_correct(answer, gold) else "wrong"


def _same_for_math(answer: str, gold: str) -> bool:
    try:
        first, second = cleaned_for_math(answer), cleaned_for_math(gold)
    except _MalformedError:
        return answer == gold
    try:
        return float(first) == float(second)
    except ValueError:
        return first == second


def cleaned_for_math(text: str) -> str:
    """The clean-up of MATH: dollars, commas, sizes, degrees, units, a short left side, spelling of roots and fractions.

    Raises:
        ValueError: two units, or a root or fraction of nothing.
    """
    text = text.replace("\n", "").replace(r"\!", "").replace("\\\\", "\\")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for dropped in _MATH_DROPPED:
        text = text.replace(dropped, "")
    text = _without_unit(text).replace(r"\%", "").replace(r"\%", "")  # theirs does it twice, too
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    text = _braced_fractions(_braced_roots(text).replace(" ", ""))
    if text == "0.5":
        return r"\frac{1}{2}"
    return _slash_as_fraction(text)


def _without_unit(text: str) -> str:
    value, *units = text.split(r"\text{ ")
    if len(units) > 1:
        raise _MalformedError("two units")
    return value


def _braced_roots(text: str) -> str:
    head, *radicands = text.split(r"\sqrt")
    if not all(radicands):
        raise _MalformedError("a root of nothing")
    return head + "".join(
        rf"\sqrt{radicand}" if radicand[0] == "{" else rf"\sqrt{{{radicand[0]}}}{radicand[1:]}"
        for radicand in radicands
    )


def _braced_fractions(text: str) -> str:
    r"""``\frac12`` as ``\frac{1}{2}`` and ``\frac1{72}`` as ``\frac{1}{72}``."""
    head, *rests = text.split(r"\frac")
    pieces = [head]
    for rest in rests:
        if not rest:
            raise _MalformedError("a fraction of nothing")
        if rest[0] == "{":
            pieces.append(rest)
        elif len(rest) < 2:
            return text
        else:
            below = rest[1] if rest[1] == "{" else f"{{{rest[1]}}}"
            pieces.append(f"{{{rest[0]}}}{below}{rest[2:]}")
    return r"\frac".join(pieces)


def _slash_as_fraction(text: str) -> str:
    above, _, below = text.partition("/")
    try:
        whole = f"{int(above)}/{int(below)}"
    except ValueError:
        return text
    return rf"\frac{{{above}}}{{{below}}}" if whole == text else text


def _same_for_minerva(answer: str, gold: str) -> bool:
    if any(len(text) > REPETITIVE_LENGTH and is_repetitive(text) for text in (answer, gold)):
        return False
    return cleaned_for_minerva(answer) == cleaned_for_minerva(gold)


def cleaned_for_minerva(text: str) -> str:
    r"""The clean-up of Minerva: no spaces, units, quotes; the first ``$...$`` of a line stands for the line."""
    for before, after in _MINERVA_REPLACED:
        text = text.replace(before, after)
    for dropped in _MINERVA_DROPPED:
        text = text.replace(dropped, "")
    text = "\n".join(_first_formula(line) for line in text.split("\n"))
    for wrapper in _MINERVA_WRAPPERS:
        text = wrapper.sub(r"\1", text)
    text = _MINERVA_BOXED.sub(r"\1", text)
    text = _BARE_ROOT.sub(r"sqrt{\1}", _BARE_FRACTION.sub(r"frac{\1}{\2}", text)).replace("$", "")
    digits = text.replace(",", "")
    return digits if digits.isdigit() else text


def _first_formula(line: str) -> str:
    pieces = line.split("$", 2)
    return f"${pieces[1]}$" if len(pieces) == 3 else line


def is_repetitive(text: str) -> bool:
    """Whether more than a fifth of all substrings occurred before in the text, counted by a suffix automaton."""
    edges: list[dict[str, int]] = [{}]
    links, lengths = [-1], [0]
    last = 0
    for char in text:
        edges.append({})
        lengths.append(lengths[last] + 1)
        links.append(0)
        state, last = last, len(edges) - 1
        while state >= 0 and char not in edges[state]:
            edges[state][char] = last
            state = links[state]
        if state < 0:
            continue
        target = edges[state][char]
        if lengths[target] > lengths[state] + 1:
            edges.append(dict(edges[target]))
            lengths.append(lengths[state] + 1)
            links.append(links[target])
            copy = len(edges) - 1
            links[target] = copy
            while state >= 0 and edges[state].get(char) == target:
                edges[state][char] = copy
                state = links[state]
            target = copy
        links[last] = target
    different = sum(length - lengths[link] for length, link in zip(lengths[1:], links[1:], strict=True))
    every = len(text) * (len(text) + 1) // 2
    return every > 0 and (every - different) / every > REPETITIVE_SHARE
