r"""The options of a multiple-choice row, in whatever shape it has them, and which of them is the right one.

======================================== ==============================================================================
options                                  labels
======================================== ==============================================================================
``["x", "y"]``                           none; of ``["A. x", "B. y"]`` the letters in front
``{"text": [...], "label": [...]}``      its labels, as ARC and its kin have them
``{"A": "x", "B": "y"}``                 the keys
``[{"label": "A", "text": "x"}, ...]``   its labels; also ``key``, ``id``, ``letter``, ``content``, ``value``, ...
columns ``A``, ``B``, ...; ``option_a``  the letters in the names of the columns; ``option1``, ... have none
any of the first four as text            JSON or Python's spelling of it, never evaluated (:mod:`.literal`)
lines ``A. x`` in one text               the letters
======================================== ==============================================================================

**Labels decide.** Options are shown as A, B, C, ... in the order of their labels, where these are A, B, C, ... or 1, 2,
3, ...; other labels (F to J) leave the order as it is. A gold is looked for among the labels, then among the texts.

**Numbers without labels** are positions counted from 0, as MMLU has them; from 1 where the first rows of the file hold
a number as large as there are options and never a 0. A number that could as well be another option's text is refused
unless the first rows tell (:func:`first_number`), because either reading would be a guess.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_rl.data.literal import read_literal
from spark_rl.data.values import Row, RowError, UnreadableError, pick, text_of
from spark_rl.verify.choice import compare_choice
from spark_rl.verify.letters import read_letters

CHOICES = ("choices", "options")
LETTERS = string.ascii_uppercase
INDEXED = frozenset(("question", "subject", "choices", "answer"))
"""The columns of MMLU, whose numbers are positions counted from 0, whatever the options are."""

_LABEL_KEYS = ("label", "labels", "key", "letter", "id", "index")
_TEXT_KEYS = ("text", "texts", "content", "value", "option", "choice", "answer")
_COLUMN = re.compile(r"(?:(?:option|choice|opt|answer)[_ ]?([A-Za-z]|[1-9])|op([a-e])|([A-Z]))")
_LABEL = re.compile(r"(?:(?:option|choice|opt)[_ ]?)?[(\[]?\s*([A-Za-z]|\d{1,2})\s*[)\].:]?", re.IGNORECASE)
_OWN_LABEL = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):：．、])\s*(\S.*)", re.DOTALL)
_LINE_LABEL = re.compile(r"(?:^|(?<=[;\n]))[ \t]*(?:\(([A-Z])\)|([A-Z])[.):：．、])", re.MULTILINE)
_TEX_LABEL = re.compile(r"\\(?:textbf|text|textrm|mathrm|mathbf|bf|rm)\s?\{\s?\(?([A-Z])\)?[.:]?\s?(?:\\ )?\}")
_LISTED = re.compile(r"(?:\A|[,;\n])\s*\(?([a-jA-J])\s?[).:]\s*")
_LOOSE_LABEL = re.compile(r"(?<![A-Za-z0-9(\\.])([A-J])[).:]\s")
_BRACKET_LABEL = re.compile(r"(?<![A-Za-z0-9])\(\s?([A-Z])\s?\)")
_LABELLED = ((_TEX_LABEL, 3), (_BRACKET_LABEL, 3), (_LINE_LABEL, 2), (_LOOSE_LABEL, 3))
"""How options are marked inside a question, and how many at least make them options."""
_SPACE = r"\s|\\[ ,;:!]|~|\\q?quad(?![A-Za-z])|\\hspace\*?\{[^{}]{0,20}\}"
_BEFORE = re.compile(rf"(?:{_SPACE})++")
_AFTER = re.compile(rf"(?:{_SPACE}|\\\\|;)++\Z")
_LONGEST = 400
"""Characters of an option that stands in the question: what is longer is prose with letters in brackets."""


@dataclass(frozen=True, slots=True)
class Options:
    """The texts in the order A, B, C, ... in which they are shown, and the labels that the row has for them, if any."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


NO_OPTIONS = Options()


def row_options(row: Row, named: str | None) -> Options:
    """The options of a row: of the named column, of a usual one, or of columns of their own.

    Raises:
        UnreadableError: there are options, and they can't be read.
    """
    value = pick(row, named, CHOICES)
    if named is not None or not _absent(value):
        return read_options(value)
    return _column_options(row)


def read_options(value: Any) -> Options:
    """The options that a value holds. Raises :class:`UnreadableError` for what is neither options nor nothing."""
    if _absent(value):
        return NO_OPTIONS
    if isinstance(value, str):
        return _written(value)
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if not isinstance(value, list | tuple):
        raise UnreadableError(f"the options are of type {type(value).__name__}, not a list or a mapping")
    if all(isinstance(option, Mapping) for option in value) and value:
        labels, texts = [], []
        for option in value:
            label, text = _first(option, _LABEL_KEYS), _first(option, _TEXT_KEYS)
            if text is None:
                raise UnreadableError(f"an option is a mapping of {_names(option)}, none of which is its text")
            labels.append(label)
            texts.append(text)
        return _labelled(labels, texts) if any(label is not None for label in labels) else _checked((), texts)
    return _own_labels(_checked((), value))


def right_option(gold: Any, options: Options, first: int | None = None, *, counted: bool = False) -> str:
    """The letter, or letters, of the right option as it is shown; empty without a gold.

    Args:
        gold: a label, a letter, several letters as one text, an option's own text, or a position.
        first: what positions of this file are counted from, null if it is not known.
        counted: whether numbers of this file are known to be positions.

    Raises:
        RowError: the gold is none of these, or a number that could be two of them.
    """
    texts, shown = options.texts, LETTERS[: len(options.texts)]
    if isinstance(gold, list | tuple):
        if len(gold) != 1:
            raise RowError(
                f"{len(gold)} right options in a list may mean any of them or all; write one text, 'A, C', for all"
            )
        return right_option(gold[0], options, first, counted=counted)
    text = text_of(gold, "answer")
    if not text:
        return ""
    if options.labels:
        at = _labelled_place(text, options.labels)
        return shown[at] if at is not None else _by_text(text, options, f"none of the labels {_few(options.labels)}")
    number = int(text) if re.fullmatch(r"-?[0-9]{1,4}", text) and not isinstance(gold, bool) else None
    if number is None:
        return _by_text(text, options, "neither a letter")
    base = 0 if first is None else first
    place = number - base if 0 <= number - base < len(texts) else None
    same = texts.index(text) if text in texts else None
    if place is None and same is None:
        return _by_text(text, options, f"not an index {base}..{len(texts) - 1 + base}, not a letter")
    if place is not None and same is not None and place != same:
        typed = not isinstance(gold, str)
        if counted and typed:
            return shown[place]
        if counted or typed:
            raise RowError(
                f"answer {number} is the text of option {shown[same]} and the position of option {shown[place]}; "
                "give letters"
            )
        return shown[same]
    at = same if place is None else place
    assert at is not None, "one of the two is there"
    return shown[at]


def first_number(rows: Iterable[tuple[Options, Any]]) -> tuple[int | None, bool]:
    """(what positions are counted from, whether numbers are positions), told by the golds of a file's first rows.

    Null and false where no row tells: a row tells if its number is not the text of one of its options.
    """
    seen: set[str] = set()
    for options, gold in rows:
        text = str(gold) if isinstance(gold, int | str) and not isinstance(gold, bool) else ""
        if options.labels or not options.texts or not re.fullmatch(r"[0-9]{1,2}", text) or text in options.texts:
            continue
        number = int(text)
        seen.add("zero" if number == 0 else "last" if number == len(options.texts) else "between")
    if "zero" in seen and "last" not in seen:
        return 0, True
    if "last" in seen and "zero" not in seen:
        return 1, True
    return None, "between" in seen and "last" not in seen


def with_options(question: str, texts: Sequence[str]) -> str:
    """The question with a line for each option, unless the options are only the letters of what the picture shows, or
    stand in the question already."""
    letters = LETTERS[: len(texts)]
    if not question or list(texts) == list(letters) or inline_options(question).texts == tuple(texts):
        return question
    return "\n".join((question, *(f"({letter}) {text}" for letter, text in zip(letters, texts, strict=True))))


def inline_options(question: str) -> Options:
    r"""Options that stand in the question, ``\textbf{(A)}\ 3 \qquad \textbf{(B)}\ 4`` or lines ``A. 3``.

    Their letters must be A, B, C, ... in order, at least three of them, or two on lines of their own.
    """
    for pattern, least in _LABELLED:
        found = list(pattern.finditer(question))
        letters = [next(group for group in label.groups() if group) for label in found]
        if len(found) < least or letters != list(LETTERS[: len(found)]):
            continue
        ends = [*(label.start() for label in found[1:]), len(question)]
        pieces = [question[label.end() : end] for label, end in zip(found, ends, strict=True)]
        pieces[-1] = pieces[-1].strip().split("\n", 1)[0]  # what follows the last option is the question again
        texts = tuple(_trimmed(piece) for piece in pieces)
        if all(0 < len(text) <= _LONGEST for text in texts):
            return Options(texts, tuple(letters))
    return NO_OPTIONS


def names_letters(question: str) -> bool:
    """Whether options with letters stand in the question, be it that their texts can't be told apart."""
    return any({"A", "B"} <= {"".join(filter(None, label.groups())) for label in pattern.finditer(question)}
               for pattern, _ in _LABELLED)  # fmt: skip


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or (not value and value in ("", [], ()))


def _written(text: str) -> Options:
    """Options written as one text."""
    value = read_literal(text)
    if value is not None:
        return read_options(value)
    found = inline_options(text)
    if not found.texts:
        found = _lettered(text)
    if not found.texts:
        raise UnreadableError(f"the options are not a list but the text {text.strip()[:40]!r}")
    return found


def _lettered(text: str) -> Options:
    """``a ) 38 , b ) 27.5`` as MathQA has them: every letter in order, commas between."""
    found = list(_LISTED.finditer(text))
    labels = [one[1].upper() for one in found]
    if len(found) < 2 or found[0].start() or labels != list(LETTERS[: len(found)]):
        return NO_OPTIONS
    ends = [*(one.start() for one in found[1:]), len(text)]
    return _checked(labels, [text[one.end() : end].strip(" ,;\n") for one, end in zip(found, ends, strict=True)])


def _from_mapping(value: Mapping[Any, Any]) -> Options:
    if not value:
        raise UnreadableError("the options are an empty mapping")
    texts, labels = _first(value, _TEXT_KEYS), _first(value, _LABEL_KEYS)
    if isinstance(texts, list | tuple):
        if labels is None:
            return _own_labels(_checked((), texts))
        if not isinstance(labels, list | tuple) or len(labels) != len(texts):
            raise UnreadableError(f"the options have {len(texts)} texts and not as many labels")
        return _labelled(labels, texts)
    if not all(_LABEL.fullmatch(str(key).strip()) for key in value):
        raise UnreadableError(f"the options are a mapping of {_names(value)}, which are no labels")
    # columns of a Parquet file have every key that any row has
    present = {key: text for key, text in value.items() if text is not None}
    return _labelled(list(present), list(present.values())) if present else NO_OPTIONS


def _column_options(row: Row) -> Options:
    """Options in columns of their own; trailing ones may be empty."""
    columns: dict[str, Any] = {}
    for name, value in row.items():
        found = _COLUMN.fullmatch(str(name)) or _COLUMN.fullmatch(str(name).lower())
        if found is not None:
            columns.setdefault(next(group for group in found.groups() if group).upper(), value)
    names = next((few for few in (LETTERS[:10], "123456789") if {*few[:2]} <= columns.keys()), "")
    held = [name for name in names if name in columns and not _absent(columns[name])]
    if len(held) < 2:
        return NO_OPTIONS
    if held != list(names[: len(held)]):
        raise UnreadableError(f"the options in columns {', '.join(held)} leave one out")
    texts = [columns[name] for name in held]
    # whether choice1 is 0 or 1 is for the file to tell: Winogrande counts from 1, COPA from 0
    return _labelled(held, texts) if names[0] == "A" else _checked((), texts)


def _labelled(labels: Sequence[Any], texts: Sequence[Any]) -> Options:
    """Options in the order of labels that count A, B, C, ... or 1, 2, 3, ...; in their own order otherwise."""
    clean = []
    for label in labels:
        found = _LABEL.fullmatch(str(label).strip())
        if found is None or isinstance(label, bool | float):
            raise UnreadableError(f"an option has the label {str(label)[:20]!r}, neither a letter nor a number")
        clean.append(found[1].upper())
    if len(set(clean)) < len(clean):
        raise UnreadableError(f"two options have the same label: {_few(clean)}")
    checked = _checked(clean, texts)
    counted = LETTERS if clean[0].isalpha() else [str(n) for n in range(1, 27)]
    usual = list(counted[: len(clean)])
    if sorted(usual) != sorted(clean):
        return checked
    order = [clean.index(label) for label in usual]
    return Options(tuple(checked.texts[at] for at in order), tuple(usual))


def _checked(labels: Sequence[str], texts: Sequence[Any]) -> Options:
    if len(texts) > len(LETTERS):
        raise UnreadableError(f"{len(texts)} options are more than there are letters")
    for text in texts:
        if isinstance(text, Mapping | list | tuple | bytes):
            raise UnreadableError(f"the option is a {type(text).__name__}, not text or a number")
    found = tuple(text_of(text, "option") for text in texts)
    if found and not all(found):
        raise UnreadableError(f"option {LETTERS[found.index('')]} is empty")
    return Options(found, tuple(labels))


def _own_labels(options: Options) -> Options:
    """``("A. x", "B. y")`` without the letters in front, if every option has the one of its place."""
    found = [_OWN_LABEL.fullmatch(text) for text in options.texts]
    letters = ["" if one is None else one[1] or one[2] for one in found]
    if len(found) < 2 or letters != list(LETTERS[: len(found)]):
        return options
    return Options(tuple(one[3].strip() for one in found if one is not None), tuple(letters))


def _labelled_place(text: str, labels: Sequence[str]) -> int | None:
    found = _LABEL.fullmatch(text)
    return labels.index(found[1].upper()) if found is not None and found[1].upper() in labels else None


def _by_text(text: str, options: Options, otherwise: str) -> str:
    """The letter of the option whose text, or whose mathematics, this is; several letters where it names several."""
    texts, shown = options.texts, LETTERS[: len(options.texts)]
    letters = read_letters(text)
    named = options.labels or tuple(shown)
    if letters is not None and letters <= set(named) and (len(letters) == 1 or text not in texts):
        found = sorted(shown[named.index(letter)] for letter in letters)
        # a letter beside the text of another option contradicts itself
        if len(found) > 1 or named != tuple(shown) or _is(found[0], text, texts):
            return ", ".join(found)
    if text in texts:
        return shown[texts.index(text)]  # equal options are the same answer
    same = next((letter for letter in shown if letters is None and _is(letter, text, texts)), None)
    if same is None:
        raise RowError(f"answer {text[:40]!r} is {otherwise} nor one of the {len(texts)} options")
    return same


def _is(letter: str, text: str, texts: Sequence[str]) -> bool:
    try:
        return compare_choice(letter, text, texts) == "correct"
    except ValueError:
        return False


def _trimmed(text: str) -> str:
    r"""Without the spaces and the ``\qquad`` around it, and without a ``$`` that opened before or closes after it."""
    text = re.sub(r"\$\s{0,3}\$\Z", "", _edged(text))  # one closes, the next one opens
    if text.count("$") % 2:
        text = text.removesuffix("$") if text.endswith("$") else text.removeprefix("$")
    return _edged(text)


def _edged(text: str) -> str:
    opening = _BEFORE.match(text)
    text = text[opening.end() :] if opening is not None else text
    return _AFTER.sub("", text).strip()


def _first(value: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    """What the first of these keys holds, whatever its case."""
    lowered = {str(key).lower(): held for key, held in value.items()}
    return next((lowered[key] for key in keys if lowered.get(key) is not None), None)


def _names(value: Mapping[Any, Any]) -> str:
    return _few([str(key) for key in value])


def _few(names: Sequence[str]) -> str:
    return ", ".join(name[:20] for name in names[:5]) + (", ..." if len(names) > 5 else "")
