"""The short form of the fuzzers of ``campaigns/fuzz.py``, and the hostile inputs that they found."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from running import ENVIRONMENT, write_lines
from spark_rl.chat import ChatFormat, Prompt, rendering
from spark_rl.cli import main
from spark_rl.config import ChatConfig, DataConfig
from spark_rl.data import load_problems
from spark_rl.data.images import ImageError, open_image
from spark_rl.embedded.build import build_tokenizer
from spark_rl.engine.base import Sampling
from spark_rl.engine.endpoint import EndpointError
from spark_rl.engine.openai import OpenAIEngine
from spark_rl.errors import LONGEST, ChatError, DataError, UserError
from spark_rl.files import read_yaml
from spark_rl.problem import Problem
from spark_rl.recycle.templates import TemplateError, load_templates

CAMPAIGN = Path(__file__).parents[1] / "campaigns" / "fuzz.py"
MESSAGES = [{"role": "user", "content": "1+1?"}]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("targets", "tries"), [(("rows", "images", "templates", "replies"), 60), (("runs",), 4)])
def test_hostile_inputs_are_used_or_refused_in_a_line(targets: tuple[str, ...], tries: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CAMPAIGN, *targets, "--tries", str(tries), "--seed", "7", "--keep", tmp_path / "kept",
         "--json", tmp_path / "found.json"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=590, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for found in json.loads((tmp_path / "found.json").read_text()).values():
        assert (found["tries"], found["findings"]) == (tries, [])
        assert found["passed"] > 0, "what is valid is used"
        assert found["refused"] > 0, "what is not is refused"


# Chat templates


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes too long"),
        ("{{ 'a' * 10**11 }}", "too much memory"),
        ("{{ 'a' * 21000000 }}", "writes 21,000,0.. characters"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "unsafe"),
        ("{{ raise_exception('\x1b[31m' ~ 'no') }}", r"\\x1b\[31mno"),
    ],
)
def test_templates_that_never_end_take_everything_or_escape_are_refused(template: str, why: str) -> None:
    with pytest.raises(ChatError, match=why):
        ChatFormat(build_tokenizer(), ChatConfig(template=template + "{{ messages[0].content }}"))
    assert rendering.render("{{ messages[0].content }}", MESSAGES, {}) == "1+1?", "the next is rendered"


def test_a_template_is_limited_for_every_prompt_and_not_for_the_first_alone(quick: None) -> None:
    del quick
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = "{{ messages[0].content }}{% if 'bomb' in messages[0].content %}" + loop + "{% endif %}"
    chat = ChatFormat(build_tokenizer(), ChatConfig(template=template, policy="{question}"))
    assert chat.encode(Problem(id="p", question="1+1?", answer="2")).text == "1+1?"
    with pytest.raises(ChatError, match=r"chat\.template failed: it takes too long"):
        chat.encode(Problem(id="p", question="bomb", answer="2"))


def test_rendering_is_what_transformers_renders() -> None:
    tokenizer = build_tokenizer()
    template = (
        "{{ bos_token }}{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }} {% endif %}\n"
        "{{ m.content | tojson }}{% break %}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
        "{{ x }}{{ eos_token }}"
    )
    chat = ChatFormat(tokenizer, ChatConfig(template=template, policy="ü {question}", template_arguments={"x": [1]}))
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "ü 1+1?"}],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
        x=[1],
    )
    assert chat.encode(Problem(id="p", question="1+1?", answer="2")).text == expected


def test_lone_surrogates_of_a_template_are_replaced() -> None:
    chat = ChatFormat(build_tokenizer(), ChatConfig(template="{{ '\\ud800' }}{{ messages[0].content }}"))
    assert chat.encode(Problem(id="p", question="1+1?", answer="2")).text.startswith("\ufffd")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells children so")
def test_a_renderer_that_was_killed_is_started_again() -> None:
    first = rendering.render("{{ messages|length }}", MESSAGES, {})
    tasks = Path("/proc/self/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    (pid,) = [pid for pid in children if b"spark_rl.chat.rendering" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, signal.SIGKILL)
    assert rendering.render("{{ messages|length }}", MESSAGES, {}) == first == "1"


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise(names)]
    (tmp_path / "set.yaml").write_text("\n".join([*lines, "instruction: *j"]))
    with pytest.raises(TemplateError, match="aliases make far more values"):
        load_templates(str(tmp_path / "set.yaml"))
    assert read_yaml("a: &a [1]\nb: [*a, *a]") == {"a": [1], "b": [[1], [1]]}


# Messages


def test_what_a_message_quotes_steers_no_terminal_and_fills_no_screen() -> None:
    error = UserError("bad \x1b]0;owned\x07 \x9b31m \u202egnp.exe \ud800\n" + "x" * 10**6 + " mend it")
    assert str(error).startswith(r"bad \x1b]0;owned\x07 \x9b31m \u202egnp.exe \ud800 xxx")
    assert str(error).endswith("x mend it")
    assert len(str(error)) <= LONGEST
    with pytest.raises(ImageError, match=r"\\x1b\[31m"):
        open_image("\x1b[31m.png")


def test_what_commands_print_steers_no_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"rollout": {}, "model": {"path": "\x1b]0;owned\x07"}}))
    assert main(["runs", str(tmp_path / "runs")]) == 0
    shown = capfd.readouterr().out
    assert "\x1b" not in shown
    assert "owned" in shown
    rows = {"\x1b[31mk": {"question": "1+1?"}, "b": {"question": "1+1?", "answer": "2"}}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code = f"import sys; from spark_rl.cli import main; sys.exit(main(['data', {str(tmp_path / 'rows.json')!r}]))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr


# Files


def test_pipes_and_devices_are_refused_and_never_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl is neither a file nor a folder"):
        load_problems(str(tmp_path / "rows.jsonl"), DataConfig())
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"zero\.csv is neither"):
        load_problems(str(tmp_path / "zero.csv"), DataConfig())
    for name in ("config.json", "summary.json", ".lock", "metrics.jsonl", "checkpoints/step-000001/state.json"):
        run = tmp_path / f"of-{Path(name).stem}" / "run"
        (run / name).parent.mkdir(parents=True)
        (run / "config.json").write_text('{"rollout": {}}')
        (run / "metrics.jsonl").write_text('{"step": 1}\n')
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)
        assert main(["runs", str(run.parent)]) == 0
        assert "is neither a file nor a folder" in capsys.readouterr().out.replace("\n", " ")
        (run / "checkpoints" / "step-000001" / "model").mkdir(parents=True)
        step = str(run / "checkpoints" / "step-000001")
        commands = (
            ["report", str(run)], ["solve", "1+1?", "--model", step], ["eval", "--model", str(run)],
            ["train", "--resume", "--run-dir", str(run)], ["export", step, "--out", str(tmp_path / "out")],
        )  # fmt: skip
        for command in commands:
            assert main(command) == 2
            said = capsys.readouterr().err
            assert "neither a file nor a folder" in said or " is damaged: manifest.json is missing" in said, command


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", "[]"), ("state.json", '{"_data_files": 1}'), ("state.json", "[" * 9000),
        ("dataset_info.json", "[]"),
        ("dataset_info.json", '{"splits": {"train": 3}, "features": 7}'), ("dataset_info.json", "1"),
    ],
)  # fmt: skip
def test_a_saved_data_set_that_is_damaged_is_a_line(file: str, content: str, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([{"question": "1+1?", "answer": "2"}]).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / file).write_text(content)
    with pytest.raises(DataError, match="no data set saved by datasets"):
        load_problems(str(tmp_path / "saved"), DataConfig())


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_an_arrow_file_that_was_cut_short_is_a_line_and_not_the_end_of_the_process(keep: float, tmp_path: Path) -> None:
    import datasets

    rows = [{"question": f"1+{i}?", "answer": str(1 + i)} for i in range(200)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").glob("*.arrow")
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.raises(DataError, match="an Arrow file in it is damaged"):
        load_problems(str(tmp_path / "saved"), DataConfig())


def test_images_in_lists_without_end_are_refused(tmp_path: Path) -> None:
    image: object = "x.png"
    for _ in range(600):
        image = [image]
    rows = write_lines(tmp_path / "deep.jsonl", {"question": "1?", "answer": "1", "image": image})
    with pytest.raises(DataError, match="nested too deeply"):
        load_problems(str(rows), DataConfig())


def test_a_question_that_no_model_could_read_is_not_tokenized() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    chat = ChatFormat(tokenizer, ChatConfig())
    with pytest.raises(ChatError, match="problem p makes a prompt of 6,000,"):
        chat.encode(Problem(id="p", question="a" * 6_000_000, answer="2"))


def test_a_part_of_a_chat_of_an_odd_type_is_a_line(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": [{"type": ["text"], "text": "1+1?"}]}]
    with pytest.raises(DataError, match="a part of type"):
        load_problems(str(write_lines(tmp_path / "odd.jsonl", {"messages": chat, "answer": "2"})), DataConfig())


def test_a_home_of_nobody_is_no_traceback() -> None:
    with pytest.raises(ChatError, match=r"cannot read ~nobody-of-this-name/t\.jinja"):
        ChatFormat(build_tokenizer(), ChatConfig(template="~nobody-of-this-name/t.jinja"))


def test_ends_that_are_no_tokens_are_refused() -> None:
    chat = ChatFormat(build_tokenizer(), ChatConfig())
    assert chat.eos_ids(SimpleNamespace(eos_token_id=[7, 8])) >= {7, 8}
    for wrong in ("7", [7, "x"], [None], True, 1.5, 10**30, [7, -(2**63)]):
        with pytest.raises(ChatError, match="which is no number of a token"):
            chat.eos_ids(SimpleNamespace(eos_token_id=wrong))


# Replies


@contextmanager
def server(body: bytes, encoding: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Encoding", encoding)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}/v1"
        finally:
            found.shutdown()
            thread.join()


REPLY = json.dumps({"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (gzip.compress(b" " * 300_000_000, 1), "gzip", "more than 256 MB"),
        (gzip.compress(gzip.compress(b" " * 10_000_000)), "gzip, gzip", "compressed as gzip, gzip"),
        (REPLY, "br", "compressed as br"),
        (REPLY, "gzip", "not the gzip that it says it is"),
    ],
)
def test_replies_that_expand_are_bounded(body: bytes, encoding: str, why: str) -> None:
    with server(body, encoding) as url, pytest.raises(EndpointError, match=why):
        OpenAIEngine(url, "m", retries=0).generate([Prompt("1+1?", (), tuple(MESSAGES))], Sampling())


def test_compressed_replies_are_read() -> None:
    with server(gzip.compress(REPLY), "gzip") as url:
        ((found,),) = OpenAIEngine(url, "m", retries=0).generate([Prompt("1+1?", (), tuple(MESSAGES))], Sampling())
    assert found.text == "2"
