from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.config import RecycleConfig
from spark_rl.recycle import (
    FORMS,
    TemplateError,
    load_templates,
    parse_templates,
    render_judge,
    render_pairwise,
    render_reflection,
    shown,
)

NATURAL = load_templates("natural")
LEAKS = re.compile(
    r"unfortunately|mistaken|erroneous|flawed|failed|(wrong|incorrect) (answer|response|solution)"
    r"|is (wrong|incorrect|false)\.|was (wrong|incorrect|correct|right)|fix (it|the)|correct (it|the (error|mistake))"
    r"|the error|the mistake|your mistake|try again|well done|good (answer|work)",
    re.IGNORECASE,
)
"""Words that would tell the label to whoever reads the prompt."""
DOUBTFUL = re.compile(
    r"\b(wrong|incorrect|not correct|errors?|mistakes?|slips?|false|fails?|reject\w*)\b", re.IGNORECASE
)
OPEN = re.compile(
    r"\b(if|whether|or|should|may|which|wherever|any|neither|means|bin|statement|in case)\b|[AB]\. ", re.IGNORECASE
)
"""A sentence with a doubtful word must leave it open."""


def minimal() -> dict[str, Any]:
    """The smallest explicit set without a mistake."""
    return {
        "pointwise": [{"labels": "yes_no", "text": "{question} {response} \\boxed{Yes} or \\boxed{No}"}],
        "pairwise": [{"text": "{question} {response_a} {response_b} \\boxed{A} or \\boxed{B}"}],
        "reflection": [{"text": "{question} {response} \\boxed{}"}],
    }


def test_at_least_twelve_wordings_for_each_form() -> None:
    forms = Counter(template.form for template in NATURAL.reflection)
    assert forms["answer"] >= 13
    assert forms["cot"] >= 13
    assert len(NATURAL.pointwise) >= 13
    assert len(NATURAL.pairwise) >= 13
    for templates in (NATURAL.pointwise, NATURAL.pairwise, NATURAL.reflection):
        assert len({template.text for template in templates}) == len(templates)


def test_both_letters_mean_correct_equally_often() -> None:
    for form in FORMS:
        labels = Counter(t.labels for t in NATURAL.pointwise if t.form in {form, "any"})
        assert labels["A", "B"] == labels["B", "A"] >= 2
        assert labels["Yes", "No"] >= 2


def test_letters_mean_what_the_wording_says() -> None:
    says = re.compile(
        r"\b([AB])(?:\. The response reaches| takes answers that are correct| means that .* is correct,| \(accept)"
    )
    for template in NATURAL.pointwise:
        if template.labels is not None and "A" in template.labels:
            assert says.findall(template.text) == [template.labels.correct], template.text


def test_no_wording_leaks_the_label() -> None:
    for template in (*NATURAL.pointwise, *NATURAL.pairwise, *NATURAL.reflection):
        assert not LEAKS.search(template.text), template.text
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])|\n\n", template.text):
            assert not DOUBTFUL.search(sentence) or OPEN.search(sentence), sentence


@pytest.mark.parametrize(
    "text",
    [
        "This answer is wrong.",
        "The answer was incorrect, solve again.",
        "Fix the error below.",
        "There is a mistake in it.",
    ],
)
def test_the_leak_test_finds_leaks(text: str) -> None:
    assert LEAKS.search(text) or (DOUBTFUL.search(text) and not OPEN.search(text))


def test_every_natural_wording_ends_by_asking_for_a_box() -> None:
    for template in (*NATURAL.pointwise, *NATURAL.pairwise, *NATURAL.reflection):
        last = template.text.splitlines()[-1]
        assert "\\boxed{" in last
        assert not re.search(r"\\box\b", template.text)
        assert "{response" not in last


@given(st.text(), st.text(), st.text(), st.sampled_from(FORMS))
def test_rendering_puts_texts_between_the_pieces(question: str, first: str, second: str, form: str) -> None:
    """The pieces of a template, joined by hand, with whatever the texts hold between them."""
    a, b = shown(first, form), shown(second, form)
    texts = {"question": question, "response": a, "response_a": a, "response_b": b}

    def by_hand(text: str) -> str:
        pieces = re.split(r"\{(question|response|response_a|response_b)\}", text)
        return "".join(texts[piece] if i % 2 else piece for i, piece in enumerate(pieces))

    def first_fit(templates: Any) -> str:
        return next(t.text for t in templates if t.form in {form, "any"})

    assert render_judge(NATURAL, question, first, None, form)[0] == by_hand(first_fit(NATURAL.pointwise))
    assert render_pairwise(NATURAL, question, first, second, None, form) == by_hand(first_fit(NATURAL.pairwise))
    assert render_reflection(NATURAL, question, first, None, form) == by_hand(first_fit(NATURAL.reflection))


def test_own_sets_are_files_and_read_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(minimal()))
    templates = load_templates(str(path))
    assert templates.pointwise[0].labels == ("Yes", "No")
    assert templates is load_templates(str(path))
    assert RecycleConfig(templates=str(path)).templates == templates.name


def edit(task: str, **changes: Any) -> dict[str, Any]:
    tree = minimal()
    tree[task][0] |= changes
    return tree


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([1], ["mapping"]),
        ({**minimal(), "instruction": "loud"}, ["instruction 'loud'", "implicit"]),
        ({**minimal(), "pairwize": []}, ["unknown key 'pairwize'", "pairwise"]),
        ({k: v for k, v in minimal().items() if k != "reflection"}, ["no reflection templates"]),
        ({**minimal(), "pairwise": []}, ["no pairwise templates"]),
        ({**minimal(), "pairwise": "text"}, ["no pairwise templates"]),
        ({**minimal(), "pairwise": ["text"]}, ["pairwise 1", "text"]),
        (edit("reflection", form="answer"), ["no reflection template for form cot"]),
        (edit("reflection", form="ans"), ["reflection 1", "form 'ans'"]),
        (edit("reflection", labels="yes_no"), ["reflection 1", "unknown key 'labels'"]),
        (
            edit("reflection", text="{question} {answer} {response} \\boxed{}"),
            ["reflection 1", "{answer}", "{response}"],
        ),
        (edit("reflection", text="{question} {response_a} \\boxed{}"), ["{response_a}"]),
        (edit("reflection", text="{question} \\boxed{}"), ["never shows {response}"]),
        (edit("reflection", text="{question} {response} \\box{}"), ["reflection 1", "{}"]),
        (edit("reflection", text="{question} {response} \\boxed{} not \\box"), ["reflection 1", "\\boxed{}"]),
        (edit("reflection", text="{question} {response}"), ["does not ask for \\boxed{}"]),
        (edit("reflection", text="\\boxed{}\n{question} {response}"), ["last line"]),
        (edit("pointwise", text="{question} {response} \\boxed{Yes} or no"), ["pointwise 1", "\\boxed{No}"]),
        (edit("pairwise", text="{question} {response_a} {response_b} \\boxed{A} or \\boxed{C}"), ["\\boxed{B}"]),
        (edit("pointwise", labels="maybe"), ["pointwise 1", "labels 'maybe'", "yes_no"]),
        (edit("pointwise", labels="a_b"), ["pointwise 1", "A and B or B and A"]),
        (edit("pointwise", labels="a_b", correct_label="A", wrong_label="A"), ["A and B or B and A"]),
        (edit("pointwise", correct_label="Good", wrong_label="Bad"), ["verifier does not accept", "Yes and No"]),
    ],
)
def test_mistakes_name_the_file_and_the_entry(tree: Any, words: list[str]) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_templates(tree, "my/set.yaml")
    message = str(caught.value)
    assert message.startswith("my/set.yaml")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_minimal_set_has_no_mistake() -> None:
    assert parse_templates(minimal(), "m").instruction == "explicit"
    silent = minimal()
    for (entry,) in silent.values():
        entry["text"] = entry["text"].partition("\\boxed")[0]
    assert parse_templates({**silent, "instruction": "implicit"}, "m").instruction == "implicit"


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"cannot read templates 'nature'.*one of: natural, terse"):
        load_templates("nature")
    broken = tmp_path / "broken.yaml"
    broken.write_text("pointwise: [")
    with pytest.raises(TemplateError, match=r"broken\.yaml is not valid YAML") as caught:
        load_templates(str(broken))
    assert "\n" not in str(caught.value)
    broken.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TemplateError, match="not valid YAML"):
        load_templates(str(broken))
    broken.write_text("pointwise: []\nreflection: []\npointwise: []\n")
    with pytest.raises(TemplateError, match=r"broken\.yaml: 'pointwise' is given twice, on lines 1 and 3"):
        load_templates(str(broken))


def test_recycling_needs_no_torch() -> None:
    code = "import sys, spark_rl.recycle; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sympy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
