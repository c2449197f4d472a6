"""The page itself. The one importer of Gradio.

Texts of models, users and data sets reach the browser as values of inputs or through :mod:`spark_rl.demo.cards`, never
as Markdown or HTML of their own. The page is asked one thing at a time; others wait in a queue.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.data.images import open_image
from spark_rl.demo import cards
from spark_rl.demo.ask import MOST_ROUNDS, Attempt, Model, judging, solving, typed, typed_problem
from spark_rl.demo.limits import PICTURE, Bounded
from spark_rl.errors import UserError
from spark_rl.problem import Problem
from spark_rl.serve.app import run
from spark_rl.verify import Verifier

MOST_WAITING = 16
"""People who wait for the model; more are told to come again."""
MOST_LISTED = 200
"""Held-out problems that the list shows."""
LABEL = 90
"""Characters of a problem in the list."""
TITLE = "spark-rl: a model that solves, judges itself and reflects"
HIDDEN = {"api_visibility": "private"}
"""Of every event: the page is for people, programs ask ``spark-rl serve``."""
ONE = {"concurrency_limit": 1, "concurrency_id": "model", **HIDDEN}
"""Of every event that asks a model."""
STYLE = Path(__file__).with_name("style.css")
THEME = gr.themes.Default(
    primary_hue="indigo", neutral_hue="slate", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
).set(
    body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_700",
)  # fmt: skip
"""Fonts are the reader's own; grey text is dark enough to read."""


def show(
    models: Sequence[Model], problems: Sequence[Problem], config: Config, host: str, port: int, *,
    hosts: Sequence[str], ready: Callable[[int], None],
) -> None:  # fmt: skip
    """Show the page until Ctrl-C.

    Args:
        models: the one that is asked, then what it can be compared with.
        problems: held-out ones to browse; may be empty.
        config: how images are read and answers are verified.
        host: an address of this machine.
        port: 0 takes any that is free.
        hosts: names that the page answers to; none for any.
        ready: called with the port once it listens.

    Raises:
        UserError: the address can't be listened on.
    """
    with tempfile.TemporaryDirectory(prefix="spark-rl-demo-") as uploads, Verifier(config.verify) as verifier:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gr.mount_gradio_app(
            app, build_page(models, problems, config, verifier), path="/", show_error=False, max_file_size=PICTURE,
            ssr_mode=False, enable_monitoring=False, run_history=False, pwa=False, mcp_server=False, footer_links=[],
            theme=THEME, css_paths=STYLE,
        )  # fmt: skip
        if hosts:
            app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        run(Bounded(app), host, port, ready)


def build_page(models: Sequence[Model], problems: Sequence[Problem], config: Config, verifier: Verifier) -> gr.Blocks:
    """The page, with its events; see :func:`show`."""
    sees = any(_sees(model) for model in models)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        gr.HTML(
            "<h1>It answers, judges itself, and reflects</h1><p>One model in three roles, trained on its own recycled "
            "rollouts (SPARK).</p>", elem_id="spark-title",
        )  # fmt: skip
        with gr.Tabs():
            with gr.Tab("Solve"):
                _solve_tab(models, problems[:MOST_LISTED], config, verifier, sees=sees)
            with gr.Tab("Judge"):
                _judge_tab(models, config, sees=sees)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _solve_tab(
    models: Sequence[Model], problems: Sequence[Problem], config: Config, verifier: Verifier, *, sees: bool
) -> None:
    together = len(models)

    def listed(place: int | None) -> tuple[str, Any]:
        """The question and the first picture of a problem of the list."""
        if place is None:
            return "", None
        problem = problems[place]
        return problem.question, open_image(problem.images[0], config.data.images) if problem.images else None

    def another() -> tuple[int, str, Any]:
        place = random.randrange(len(problems))
        return place, *listed(place)

    def solve(
        question: str | None, shown: str | None, place: int | None, rounds: float, which: int
    ) -> Iterator[tuple[str, str]]:
        try:
            if place is not None and question == problems[place].question:
                problem = problems[place]
            else:
                problem = typed_problem(question, shown, config)
            asked = models if which == together else [models[which]]
            attempts: list[Attempt] = []
            for attempts in solving(asked, problem, int(rounds)):
                yield cards.note(), cards.attempts(attempts)
            if problem.answer:
                finals = [one.trace.response if one.trace is not None else "" for one in attempts]
                verdicts = verifier.verify_many(
                    [(text, problem.golds, problem.kind, problem.choices) for text in finals]
                )
                yield cards.note(), cards.attempts(attempts, problem, verdicts)
        except UserError as error:
            yield cards.note(str(error)), ""

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            question = gr.Textbox(
                label="Problem", lines=3, max_lines=12, placeholder="Type a problem", elem_id="spark-question"
            )
            place = gr.Dropdown(
                [(_label(number, one), number) for number, one in enumerate(problems)], value=None,
                visible=bool(problems), label="Held-out problems",
                info="never trained on; gold is shown after the answer",
                elem_id="spark-heldout",
            )  # fmt: skip
            draw = gr.Button("Another held-out problem", size="sm", visible=bool(problems), elem_id="spark-another")
            picture = _picture(sees)
            which = gr.Radio(
                [*((model.name, number) for number, model in enumerate(models)), ("side by side", together)],
                value=together if together > 1 else 0, visible=together > 1, label="Model", elem_id="spark-which",
            )  # fmt: skip
            rounds = gr.Slider(
                0, MOST_ROUNDS, value=min(MOST_ROUNDS, config.inference.rounds), step=1,
                label="Rounds of judging and reflecting, at most", elem_id="spark-rounds",
            )  # fmt: skip
            with gr.Row():
                start = gr.Button("Solve", variant="primary", min_width=100, elem_id="spark-solve")
                stop = gr.Button("Stop", min_width=100, elem_id="spark-stop")
        with gr.Column(scale=3, min_width=300):
            note = gr.HTML(elem_id="spark-note", padding=False)
            answers = gr.HTML(
                '<p class="spark-wait">The answer, its verdict and the reflections will stand here.</p>',
                elem_id="spark-answers", padding=False,
            )  # fmt: skip
    place.input(listed, place, [question, picture], **HIDDEN)
    draw.click(another, None, [place, question, picture], **HIDDEN)
    for changed in (picture.upload, picture.clear):
        changed(lambda: None, None, place, **HIDDEN)
    asking = gr.on(
        [start.click, question.submit], solve, [question, picture, place, rounds, which], [note, answers],
        show_progress="minimal", trigger_mode="once", **ONE,
    )  # fmt: skip
    stop.click(None, None, None, cancels=[asking], **HIDDEN)


def _judge_tab(models: Sequence[Model], config: Config, *, sees: bool) -> None:
    def judge(
        question: str | None, shown: str | None, first: str | None, second: str | None, which: int
    ) -> Iterator[tuple[str, str]]:
        try:
            problem = typed_problem(question, shown, config)
            response = typed(first, "answer A")
            other = typed(second, "answer B") if second and second.strip() else None
            for said in judging(models[which], problem, response, other):
                yield cards.note(), cards.comparison(said)
        except UserError as error:
            yield cards.note(str(error)), ""

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            question = gr.Textbox(label="Problem", lines=2, max_lines=12, elem_id="judge-question")
            picture = _picture(sees)
            first = gr.Textbox(label="Answer A", lines=2, max_lines=12, elem_id="judge-first")
            second = gr.Textbox(
                label="Answer B", lines=2, max_lines=12, placeholder="leave it empty to judge A alone",
                elem_id="judge-second",
            )  # fmt: skip
            which = gr.Radio(
                [(model.name, number) for number, model in enumerate(models)], value=0, visible=len(models) > 1,
                label="Judge", elem_id="judge-which",
            )  # fmt: skip
            with gr.Row():
                start = gr.Button("Judge", variant="primary", min_width=100, elem_id="judge-start")
                stop = gr.Button("Stop", min_width=100)
        with gr.Column(scale=3, min_width=300):
            note = gr.HTML(elem_id="judge-note", padding=False)
            verdicts = gr.HTML(
                '<p class="spark-wait">Each answer is judged alone, with P(Yes); two are compared in both orders.</p>',
                elem_id="judge-verdicts", padding=False,
            )  # fmt: skip
    asking = start.click(
        judge, [question, picture, first, second, which], [note, verdicts], show_progress="minimal", **ONE
    )
    stop.click(None, None, None, cancels=[asking], **HIDDEN)


def _picture(sees: bool) -> gr.Image:
    """Where a picture is dropped, for a model that sees."""
    picture = gr.Image(
        label="Picture", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220, visible=sees,
        buttons=[],
    )  # fmt: skip
    # Gradio would open it, and end the event with no word where it can't; ours reads pictures within limits
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def _sees(model: Model) -> bool:
    chat = model.reasoner.chat
    return not isinstance(chat, ChatFormat) or chat.processor is not None


def _label(number: int, problem: Problem) -> str:
    """A problem in one line of the list."""
    text = " ".join(problem.question.split())
    return f"{number + 1}. {text[:LABEL]}{'…' if len(text) > LABEL else ''}"
