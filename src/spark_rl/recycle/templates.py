r"""Prompt templates of the recycled tasks (A.2, Fig. 7), read from YAML files and checked when loaded.

A set is a mapping with the lists ``pointwise``, ``pairwise`` and ``reflection``; each entry is one template::

    instruction: explicit       # or implicit: the set does not ask for a box in words (a base that knows its formats)
    pointwise:
      - labels: a_b             # or yes_no
        correct_label: B        # which letter means "correct"; only for a_b
        wrong_label: A
        form: any               # answer, cot or any (the default): what of a response the wording fits
        text: "Question: {question} ... finish with \\boxed{A} or \\boxed{B}."

Placeholders are ``{question}`` and ``{response}``, in pairwise templates ``{response_a}`` and ``{response_b}``. They
are replaced in a single pass, so braces or placeholders inside a question or a response stay what they are: text. The
renderers take whole responses and show them through :func:`spark_rl.recycle.candidate.shown`, so that no prompt,
in training or at test time, holds a response that was not cleaned.

Departures from the paper: the released judge templates ask for ``\box{}``, which its grader does not read; here every
template of an explicit set ends by asking for ``\boxed{...}`` with the very tokens that the verifier accepts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from spark_rl.config import THINKING, Thinking
from spark_rl.errors import UserError
from spark_rl.files import DuplicateKeyError, read_yaml
from spark_rl.recycle.candidate import FORMS, Form, shown
from spark_rl.verify import verdict

FOLDER = Path(__file__).parent / "templates"
"""Where the shipped sets lie."""

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "pointwise": frozenset({"question", "response"}),
    "pairwise": frozenset({"question", "response_a", "response_b"}),
    "reflection": frozenset({"question", "response"}),
}

Instruction = Literal["explicit", "implicit"]

_PLACEHOLDER = re.compile(r"\{(question|response|response_a|response_b)\}")
_BRACES = re.compile(r"(?<!\\boxed)\{([^{}]*)\}")
_UNBOXED = re.compile(r"\\f?box\b")


class TemplateError(UserError):
    """A mistake in a template file, in one line that names the file and the entry."""


class Labels(NamedTuple):
    """What a verdict looks like: the token for a correct response and the one for a wrong response."""

    correct: str
    wrong: str


YES_NO = Labels(*verdict.YES_NO)
FIRST_SECOND = Labels(*verdict.A_B)
"""In pairwise problems: the first, or the second response is the correct one."""


@dataclass(frozen=True, slots=True)
class Template:
    """One wording. ``labels`` is ``None`` for reflection, whose label is the gold answer."""

    text: str
    form: Literal["answer", "cot", "any"] = "any"
    labels: Labels | None = None


@dataclass(frozen=True, slots=True)
class Templates:
    """A set: at least one template of each kind for each form."""

    name: str
    instruction: Instruction
    pointwise: tuple[Template, ...]
    pairwise: tuple[Template, ...]
    reflection: tuple[Template, ...]
    thinking: Thinking = THINKING
    """The tags between which a response holds no answer to show."""


def render_judge(
    templates: Templates, question: str, response: str, rng: random.Random | None, form: Form
) -> tuple[str, Labels]:
    """(prompt, labels) that ask whether ``response`` is correct (Eq. 5, Eq. 10).

    ``response`` is the whole response; ``form`` says what is shown of it. The template is drawn with ``rng``; without
    one it is the first that fits, which in the shipped sets asks for Yes or No.
    """
    template = _pick(templates.pointwise, form, rng)
    assert template.labels is not None, "the loader gives every pointwise template its labels"
    return _fill(template, question=question, response=shown(response, form, templates.thinking)), template.labels


def render_pairwise(
    templates: Templates, question: str, response_a: str, response_b: str, rng: random.Random | None, form: Form
) -> str:
    """The prompt that asks which response is correct, A or B (Eq. 6). Arguments as in :func:`render_judge`."""
    template = _pick(templates.pairwise, form, rng)
    first, second = (shown(response, form, templates.thinking) for response in (response_a, response_b))
    return _fill(template, question=question, response_a=first, response_b=second)


def render_reflection(templates: Templates, question: str, response: str, rng: random.Random | None, form: Form) -> str:
    """The prompt that asks to judge and solve again (Eq. 7, Eq. 11). Arguments as in :func:`render_judge`."""
    said = shown(response, form, templates.thinking)
    return _fill(_pick(templates.reflection, form, rng), question=question, response=said)


@lru_cache(maxsize=16)
def load_templates(name: str, thinking: Thinking = THINKING) -> Templates:
    """The set with this name (``natural``, ``terse``) or in this YAML file. Read once per process.

    ``thinking`` is ``verify.thinking``: what the prompts take for an answer is what the verifier takes for one.

    Raises:
        TemplateError: one line that names the file, the entry and the mend.
    """
    path = next((path for path in FOLDER.glob("*.yaml") if path.stem == name), Path(name))
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise TemplateError(
            f"cannot read templates {name!r} ({error.strerror}); give a path to a YAML file or one of: {known}"
        ) from None
    except DuplicateKeyError as error:
        raise TemplateError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise TemplateError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return replace(parse_templates(tree, str(path)), thinking=thinking)


def parse_templates(tree: Any, where: str) -> Templates:
    """A checked set from the content of a YAML file; ``where`` names the file. Raises :class:`TemplateError`."""
    if not isinstance(tree, Mapping):
        raise TemplateError(f"{where} must hold a mapping with {', '.join(PLACEHOLDERS)}, not a {type(tree).__name__}")
    _known_keys(tree, {"instruction", *PLACEHOLDERS}, where)
    instruction: Instruction = _one_of(tree.get("instruction", "explicit"), get_args(Instruction), where, "instruction")
    parsed: dict[str, Any] = {}
    for task in PLACEHOLDERS:
        entries = tree.get(task)
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise TemplateError(f"{where} has no {task} templates; give a list of entries with a text")
        parsed[task] = tuple(
            _parse_entry(entry, task, instruction, f"{where}, {task} {number}")
            for number, entry in enumerate(entries, start=1)
        )
        for form in FORMS:
            if not any(template.form in {form, "any"} for template in parsed[task]):
                raise TemplateError(f"{where} has no {task} template for form {form}; add one with form {form} or any")
    return Templates(name=where, instruction=instruction, **parsed)


def _parse_entry(entry: Any, task: str, instruction: Instruction, where: str) -> Template:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("text"), str):
        raise TemplateError(f"{where} must be a mapping with a text")
    label_keys = {"labels", "correct_label", "wrong_label"} if task == "pointwise" else set()
    _known_keys(entry, {"text", "form", *label_keys}, where)
    labels = _parse_labels(entry, where) if task == "pointwise" else FIRST_SECOND if task == "pairwise" else None
    text = entry["text"].strip()
    found = {match[1] for match in _BRACES.finditer(text)}
    if unknown := sorted(found - PLACEHOLDERS[task]):
        allowed = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS[task]))
        raise TemplateError(f"{where} has the unknown placeholder {{{unknown[0]}}}; known here: {allowed}")
    if missing := sorted(PLACEHOLDERS[task] - found):
        raise TemplateError(f"{where} never shows {{{missing[0]}}}")
    if _UNBOXED.search(text):
        raise TemplateError(f"{where} asks for a box the verifier does not read; write \\boxed{{}}")
    if instruction == "explicit":
        for token in labels or ("",):
            if f"\\boxed{{{token}}}" not in text:
                raise TemplateError(f"{where} does not ask for \\boxed{{{token}}}; name it in the text")
        if "\\boxed{" not in text.splitlines()[-1]:
            raise TemplateError(f"{where} must ask for \\boxed{{}} in its last line")
    form = _one_of(entry.get("form", "any"), (*FORMS, "any"), where, "form")
    return Template(text=text, form=form, labels=labels)


def _parse_labels(entry: Mapping[str, Any], where: str) -> Labels:
    style = _one_of(entry.get("labels"), ("yes_no", "a_b"), where, "labels")
    default = YES_NO if style == "yes_no" else Labels("", "")
    labels = Labels(entry.get("correct_label", default.correct), entry.get("wrong_label", default.wrong))
    accepted = [YES_NO] if style == "yes_no" else [FIRST_SECOND, Labels(*reversed(FIRST_SECOND))]
    if labels not in accepted:
        pairs = " or ".join(f"{pair.correct} and {pair.wrong}" for pair in accepted)
        raise TemplateError(
            f"{where} has labels the verifier does not accept; for {style}, correct_label and wrong_label are {pairs}"
        )
    return labels


def _known_keys(mapping: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in mapping if key not in known):
        raise TemplateError(f"{where} has the unknown key {unknown[0]!r}; known here: {', '.join(sorted(known))}")


def _one_of(value: Any, allowed: Sequence[Any], where: str, key: str) -> Any:
    if value not in allowed:
        raise TemplateError(f"{where} has {key} {value!r}; it is one of: {', '.join(map(str, allowed))}")
    return value


def _pick(candidates: Sequence[Template], form: Form, rng: random.Random | None) -> Template:
    fitting = [template for template in candidates if template.form in {form, "any"}]
    return fitting[0] if rng is None else rng.choice(fitting)


def _fill(template: Template, **values: str) -> str:
    """Single pass: what a question or response brings along is never read as a placeholder."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template.text)
