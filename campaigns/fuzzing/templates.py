"""Chat templates, recycling templates and few-shot texts."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from fuzzing.hostile import TEXTS, damaged, dumped, mangled
from fuzzing.watch import CHATML, Bench, FoundError, check_secret, tokenizer_of
from spark_rl.chat import ChatFormat, rendering
from spark_rl.config import ChatConfig
from spark_rl.problem import Problem
from spark_rl.recycle.templates import load_templates, render_judge, render_pairwise, render_reflection

QUICK = 0.5
"""Seconds that a template may take here: hundreds of them never end."""


EXPRESSIONS = (
    "''.__class__.__mro__[1].__subclasses__()", "cycler.__init__.__globals__.os.popen('touch CANARY')",
    "lipsum.__globals__['os'].environ", "self.__init__.__globals__", "messages|attr('__class__')",
    "'{0.__class__.__init__.__globals__}'.format(messages)", "('{0.__class__}'|string).format(cycler)",
    "'%s'|format(messages.__class__)", "namespace.__init__.__globals__", "joiner.__init__",
    "(messages|map('attr','__class__')|list)", "(messages|map(attribute='__class__')|list)",
    "raise_exception.__globals__", "strftime_now.__globals__.sys", "strftime_now('%' * 99999)",
    "strftime_now('\\ud800')", "messages.append(1)", "messages[0].update({'role': 'system'})", "dict.__base__",
    "range(10**12)", "range(99999)|list|length", "'a' * 10**10", "'a' * 10**7", "(9**9**9)", "[0] * 10**9",
    "'%9999999999d' % 1", "'{:>9999999999}'.format(1)", "'a'|center(10**10)", "'a'|indent(10**9)",
    "('a' * 99999)|replace('a', 'b' * 99999)", "(range(99999)|list * 999)|sort|length", "'a'.ljust(10**10)",
    "messages[10**100]", "messages[-1]", "undefined.x.y", "1/0", "1 // 0", "2 ** -1.5",
    "messages|tojson(indent=10**9)", "('x' * 99)|wordwrap(0)", "messages|tojson", "messages[0].content",
    "messages[0].content|upper", "bos_token", "eos_token", "''|join", "lipsum(99)", "lipsum(n=10**9)",
    "raise_exception('\x1b[31m' + 'x' * 99999)", "raise_exception(messages)", "raise_exception('')", "'\ud800'",
    "'\x1b]0;x\x07'", "loop", "caller()", "varargs", "messages|random", "messages|groupby('role')",
    "('a,' * 9999).split(',')|batch(2)|list", "'(a+)+$'", "messages|pprint", "messages|xmlattr",
    "'a'|filesizeformat", "10**4300", "(10**4999)|string", "'x'|int(base=99)", "0|round(10**9)", "messages|sum",
    "messages|slice(10**7)|list", "''|format(*range(99999))",
)  # fmt: skip
STATEMENTS = (
    "{{% for i in range(99999) %}}{{% for j in range(99999) %}}{{% for k in range(99999) %}}{body}{{% endfor %}}"
    "{{% endfor %}}{{% endfor %}}",
    "{{% macro m(x) %}}{body}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
    "{{% for i in range(1000000000000) %}}{body}{{% endfor %}}",
    "{{% set ns = namespace(a='a') %}}{{% for i in range(60) %}}{{% set ns.a = ns.a ~ ns.a %}}{{% endfor %}}"
    "{{{{ ns.a }}}}{body}",
    "{{% for m in messages recursive %}}{{{{ loop(messages) }}}}{body}{{% endfor %}}",
    "{{% include '/etc/passwd' %}}{body}", "{{% import 'os' as os %}}{body}", "{{% extends 'x' %}}{body}",
    "{{% set messages = [] %}}{body}", "{{% if messages[0].content != 'spark-rl probe' %}}{body}{{% endif %}}",
    "{{% for m in messages %}}<|im_start|>{{{{ 'system' if m.role == 'user' else m.role }}}}{body}{{% endfor %}}",
    "{{% generation %}}{body}{{% endgeneration %}}", "{{% set x %}}{body}{{% endset %}}{{{{ x }}}}",
    "{{% filter upper %}}{body}{{% endfilter %}}", "{{% call(x) messages() %}}{body}{{% endcall %}}",
    "{{% for m in messages %}}{body}{{% break %}}{{% endfor %}}", "{{% raw %}}{body}", "{{# {body}",
    "{{% autoescape true %}}{body}{{% endautoescape %}}",
    "{{% set ns = namespace(l=[0]) %}}{{% for i in range(99) %}}{{% set ns.l = ns.l + ns.l %}}{{% endfor %}}{body}",
    "{body}",
)  # fmt: skip


def hostile_template(rng: random.Random) -> str:
    """A chat template."""
    body = "".join(
        rng.choice(("{{ " + rng.choice(EXPRESSIONS) + " }}", "{{ messages[0].content }}", rng.choice(TEXTS)))
        for _ in range(rng.choice((1, 2, 3)))
    )
    for _ in range(rng.choice((1, 1, 2))):
        body = rng.choice(STATEMENTS).format(body=body)
    text = rng.choice((CHATML + body, body, body + CHATML, body))
    if rng.random() < 0.05:
        text = "{% if 1 %}" * rng.choice((50, 500)) + text + "{% endif %}" * 50
    if rng.random() < 0.2:
        text = mangled(rng, text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return text


TEMPLATES: dict[str, Any] = {
    "instruction": "explicit",
    "pointwise": [{"labels": "yes_no", "text": "{question} {response}\nGive \\boxed{Yes} or \\boxed{No}."}],
    "pairwise": [{"text": "{question} {response_a} {response_b}\nGive \\boxed{A} or \\boxed{B}."}],
    "reflection": [{"text": "{question} {response}\nGive \\boxed{} again."}],
}  # fmt: skip
YAML = (
    "!!python/object/apply:os.system ['touch CANARY']",
    "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c]", "- " * 3000, "a: 2024-99-99",
    "? [x]\n: y", "\t- x", "%YAML 9.9\n---\n", "a: !!binary x", "a: 0x" + "f" * 9999, "{" * 3000, "a: 1\na: 2",
    "&a [*a]", "<<: &a {<<: *a}", "a: 1:1:1:1", "\ud800", "--- x\n--- y", "a: .inf",
)  # fmt: skip


def try_templates(rng: random.Random, bench: Bench) -> None:
    """One chat template, recycling template or few-shot text, rendered."""
    rendering.SECONDS = QUICK
    with bench.watch.off():
        place = bench.folder()
        os.chdir(place)
        which = rng.random()
    problem = Problem(id="p", question=rng.choice(("1+1?", *TEXTS)), answer="2")
    if which < 0.3:
        text = dumped(damaged(rng, TEMPLATES)) if rng.random() < 0.7 else rng.choice(YAML)
        name = f"set-{rng.random()}.yaml"
        Path(name).write_bytes(mangled(rng, text.encode("utf-8", "surrogatepass"), rng.choice((0, 0, 1))))
        templates = load_templates(
            name if rng.random() < 0.97 else rng.choice(("folder", "loop", "nowhere", "\0", "a" * 300))
        )
        said = rng.choice(TEXTS)
        render_judge(templates, problem.question, said, rng, "answer")
        render_pairwise(templates, problem.question, said, "\\boxed{2}", rng, "cot")
        render_reflection(templates, problem.question, said, rng, "cot")
        return
    template = hostile_template(rng)
    settings: dict[str, Any] = {
        name: rng.choice(TEXTS) for name in ("few_shot", "system", "policy") if rng.random() < 0.15
    }
    settings.setdefault("policy", "{question}")
    own: Any = template
    if which < 0.5:
        settings["template"], own = template, None
        if rng.random() < 0.3:
            Path("t.jinja").write_bytes(template.encode("utf-8", "surrogatepass"))
            settings["template"] = rng.choice(("t.jinja", "t.jinja", "folder.jinja", "nowhere.jinja", "~.jinja"))
    elif which < 0.6:
        own = rng.choice(
            ({"default": template}, {"rag": template, "tool_use": CHATML}, [{"name": "default", "template": template}])
        )
    try:
        chat = ChatFormat(tokenizer_of(own), ChatConfig(**settings))
        prompt = chat.encode(problem)
        check_secret(prompt.text)
    finally:
        if (place / "CANARY").exists():
            raise FoundError("a template has written a file")
