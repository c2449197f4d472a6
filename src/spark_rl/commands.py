"""What each command of :mod:`spark_rl.cli` does. Returned mappings are what ``--json`` writes."""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spark_rl.config import (
    Config,
    ConfigError,
    load_config,
    merge_settings,
    parse_config,
    saved_settings,
    settings_table,
)
from spark_rl.errors import UserError
from spark_rl.problem import TASKS, Completion, Group, Problem, Rollout

console = Console()


def train(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl train``."""
    config = resolve(arguments)
    if config.run_dir is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        config = parse_config({**config.model_dump(mode="json"), "run_dir": f"runs/{stamp}-seed{config.seed}"})
    assert config.run_dir is not None, "set just above"
    _quiet_libraries()
    from spark_rl.report.console import before_after_table
    from spark_rl.report.watch import ConsoleWatcher
    from spark_rl.train import train as run

    with ConsoleWatcher(console) as watcher:
        summary = run(config, resume=arguments.resume, watcher=watcher)
    if summary["before"] is not None:
        console.print(before_after_table(summary["before"], summary["after"], summary.get("transfer")))
    console.print(f"{summary['tokens']:,} tokens generated in {summary['seconds']:.0f} s of training")
    run_dir = Path(config.run_dir)
    _say(f"model   {run_dir / 'model'}\nreport  {run_dir / 'report.html'}")
    return summary


def resolve(arguments: argparse.Namespace) -> Config:
    """The configuration of ``train``: recipe, then options, then KEY=VALUE settings.

    A resumed run starts from its own settings instead of a recipe, so they need not be given again.
    """
    settings: dict[str, Any] = {}
    recipe = arguments.config or ("tiny" if arguments.model in {None, "embedded"} else None)
    if arguments.model is not None:
        settings["model"] = {"path": arguments.model}
    if arguments.data is not None:
        settings["data"] = {"train": arguments.data}
        if arguments.config is None:  # what the default recipe evaluates on says nothing about other data
            settings["data"] |= {"heldout": None, "transfer": None}
    if arguments.heldout is not None:
        settings.setdefault("data", {})["heldout"] = arguments.heldout
    for name in ("seed", "run_dir"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    if arguments.resume and arguments.config is None:
        if arguments.run_dir is None:
            raise ConfigError("--resume needs --run-dir, the run to continue")
        recipe, settings = None, merge_settings(saved_settings(Path(arguments.run_dir)), settings)
    return load_config(recipe, arguments.overrides, **settings)


def solve(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl solve``."""
    if (arguments.question is None) == (arguments.file is None):
        raise UserError("give one question, or --file FILE with problems")
    config = _inference_config(arguments)
    if arguments.file is not None:
        from spark_rl.data import load_problems

        problems = load_problems(str(arguments.file), config.data, "heldout")
    else:
        problems = (Problem(id="question", question=_encodable(arguments.question), answer=""),)
    actor = _open(arguments, config)
    started = time.perf_counter()
    traces = actor.reasoner().solve(problems)
    seconds = time.perf_counter() - started
    verdicts = _verify_finals(config, traces)
    rows = [
        {"id": t.problem.id, "question": t.problem.question, "answer": t.answer, "status": verdict,
         "rounds": [asdict(r) for r in t.rounds]}
        for t, verdict in zip(traces, verdicts, strict=True)
    ]  # fmt: skip
    if arguments.out is not None:
        _write_lines(arguments.out, rows)
    for row in rows[: 1 if arguments.file is None else 5]:
        _print_trace(row)
    facts: dict[str, Any] = {"n": len(rows), "seconds": seconds, "results": rows}
    judged = [v for v in verdicts if v is not None]
    if judged:
        facts["accuracy"] = judged.count("correct") / len(judged)
        console.print(f"{judged.count('correct')} of {len(judged)} right ({facts['accuracy']:.1%})")
    return facts


def judge(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl judge``."""
    rows = _responses(arguments)
    config = _inference_config(arguments)
    reasoner = _open(arguments, config).reasoner()
    single = [row for row in rows if "response_b" not in row]
    pairs = [row for row in rows if "response_b" in row]
    judged = reasoner.judge([_asked(r) for r in single], [r["response"] for r in single])
    for row, (text, accepted, _) in zip(single, judged, strict=True):
        row |= {"judgement": text, "verdict": None if accepted is None else "Yes" if accepted else "No"}
    compared = reasoner.compare([_asked(r) for r in pairs], [(r["response"], r["response_b"]) for r in pairs])
    for row, (text, verdict, _) in zip(pairs, compared, strict=True):
        row |= {"judgement": text, "verdict": verdict}
    if arguments.out is not None:
        _write_lines(arguments.out, rows)
    table = Table("question", "response", "verdict", "judgement", title="judgements", title_justify="left")
    for row in rows[:20]:
        shown = row["response"] + (f"\n{row['response_b']}" if "response_b" in row else "")
        table.add_row(*(Text(_short(str(x))) for x in (row["question"], shown, row["verdict"], row["judgement"])))
    console.print(table)
    return {"n": len(rows), "results": rows}


def recycle(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl recycle``."""
    from spark_rl.recycle import recycle as recycled

    config = _inference_config(arguments)
    if arguments.seed is not None:
        config = parse_config({**config.model_dump(mode="json"), "seed": arguments.seed})
    groups = _given_groups(arguments.rollouts, config) if arguments.rollouts else _sampled_groups(arguments, config)
    problems = recycled(groups, config.recycle, random.Random(config.seed))
    if arguments.out is not None:
        from spark_rl.recycle.pool import problem_to_dict

        _write_lines(arguments.out, (problem_to_dict(p) for p in problems))
    for problem in _of_each_task(problems, arguments.show):
        title = Text(f"{problem.task}  label {problem.answer}  ({problem.id})")
        console.print(Panel(Text(problem.prompt or ""), title=title, title_align="left"))
    counts: dict[str, int] = {task: sum(p.task == task for p in problems) for task in TASKS if task != "policy"}
    console.print(f"{len(groups)} groups -> " + ", ".join(f"{n} {task}" for task, n in counts.items()))
    return {"groups": len(groups), **counts}


def ablate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl ablate``."""
    _quiet_libraries()
    from spark_rl.ablate import ARMS, ablation_table
    from spark_rl.ablate import ablate as run

    arms = arguments.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise UserError(f"unknown arm {unknown[0]!r}; choose from {', '.join(ARMS)}")
    if not all(seed.isdecimal() for seed in arguments.seeds.split(",")):
        raise UserError(f"--seeds {arguments.seeds!r} is not a list of whole numbers such as 0,1,2")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    results = run(arguments.config, arms, seeds, arguments.run_dir, arguments.overrides, console.print)
    console.print(ablation_table(results))
    if "transfer" in results[arms[0]][0]:
        console.print(ablation_table(results, "transfer"))
    return results


def report(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl report``."""
    from spark_rl.report.html import write_report

    path = write_report(arguments.run_dir)
    _say(f"report  {path}")
    return {"report": str(path)}


def doctor(_arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl doctor``."""
    _quiet_libraries()
    from spark_rl.doctor import examine_machine

    facts = examine_machine()
    table = Table("what", "found", "so", title="spark-rl doctor", title_justify="left")
    for finding in facts:
        mark = {"ok": "green", "note": "yellow", "missing": "red"}[finding.level]
        table.add_row(finding.what, Text(finding.found, style=mark), finding.meaning)
    console.print(table)
    return {finding.what: finding.found for finding in facts}


def config(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl config``."""
    if arguments.config is not None or arguments.overrides:
        import yaml

        tree = load_config(arguments.config, arguments.overrides).model_dump(mode="json")
        _say(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        return tree
    if arguments.markdown is not None:
        arguments.markdown.write_text(settings_markdown(), encoding="utf-8")
    table = Table("setting", "default", "meaning", title="settings", title_justify="left")
    for key, _, default, about in settings_table():
        table.add_row(*(Text(x) for x in (key, json.dumps(default, default=str, ensure_ascii=False), about)))
    console.print(table)
    return {key: default for key, _, default, _ in settings_table()}


def settings_markdown() -> str:
    """docs/configuration.md: every setting, its type, default and docstring."""
    lines = [
        "# Settings", "",
        "Written by `make docs` from the docstrings in `src/spark_rl/config.py`.",
        "Give any of them as `KEY=VALUE` on the command line, or nested in a YAML file.", "",
        "| setting | type | default | meaning |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for key, kind, default, about in settings_table():
        cells = (f"`{key}`", f"`{kind}`", f"`{json.dumps(default, default=str, ensure_ascii=False)}`", about)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _quiet_libraries() -> None:
    """Silence load bars and notices that say nothing to someone who runs a command."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.basicConfig(level=logging.WARNING, format="spark-rl: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)


def _inference_config(arguments: argparse.Namespace) -> Config:
    """A run's own configuration, or the recipe's, with overrides applied."""
    run_config = Path(arguments.model or "") / "config.json"
    if arguments.model is not None and (Path(arguments.model) / "metrics.jsonl").exists() and run_config.exists():
        return load_config(None, arguments.overrides, **saved_settings(Path(arguments.model)))
    settings = {"model": {"path": arguments.model}} if arguments.model else {}
    needs_base = arguments.model in {None, "embedded"} and getattr(arguments, "rollouts", None) is None
    return load_config(arguments.config or ("tiny" if needs_base else None), arguments.overrides, **settings)


def _open(arguments: argparse.Namespace, config: Config) -> Any:
    _quiet_libraries()
    from spark_rl.actor import open_actor

    return open_actor(config, _trained_weights(arguments.model))


def _trained_weights(model: str | None) -> Path | None:
    """The weights of a run: its final ones, else those of its last checkpoint; ``None`` if ``model`` is not a run."""
    if model is None or not (Path(model) / "metrics.jsonl").exists():
        return None
    if (Path(model) / "model").is_dir():
        return Path(model) / "model"
    from spark_rl.checkpoint import checkpoints

    saved = checkpoints(Path(model))
    if not saved:
        raise UserError(f"the run {model} has no trained model yet; it has neither finished nor saved a checkpoint")
    return saved[-1] / "model"


def _verify_finals(config: Config, traces: Sequence[Any]) -> list[str | None]:
    """The status of each final answer, ``None`` where no gold answer is known."""
    from spark_rl.verify import Verifier

    known = [t for t in traces if t.problem.answer]
    with Verifier(config.verify) as verifier:
        found = verifier.verify_many([(t.response, t.problem.answer, t.problem.kind, t.problem.choices) for t in known])
    statuses = iter(found)
    return [next(statuses).status if t.problem.answer else None for t in traces]


def _print_trace(row: Mapping[str, Any]) -> None:
    console.print(Text(row["question"], style="bold"))
    for turn, item in enumerate(row["rounds"]):
        console.print(Text(f"  {'answer' if turn == 0 else 'reflection':<10}  {item['response']}"))
        if item["judgement"] is not None:
            said = {True: "accepts", False: "rejects", None: "unreadable"}[item["accepted"]]
            console.print(Text(f"  {'judge':<10}  {item['judgement']}  -> {said}", style="cyan"))
    status = f"  ({row['status']})" if row["status"] else ""
    final = row["answer"] if row["answer"] is not None else "no answer"
    console.print(Text(f"  {'final':<10}  {final}{status}", style="green"))


def _responses(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The responses to judge, from the options or from a file."""
    if arguments.file is None:
        if arguments.question is None or arguments.response is None:
            raise UserError("give --question and --response, or --file FILE with both on every line")
        row = {"question": arguments.question, "response": arguments.response, "response_b": arguments.other}
        return [{key: _encodable(text) for key, text in row.items() if text is not None}]
    rows = list(_read_lines(arguments.file))
    for number, row in enumerate(rows, 1):
        for name in ("question", "response"):
            if not isinstance(row.get(name), str):
                raise UserError(f"{arguments.file} line {number} has no text in {name!r}")
        if not isinstance(row.get("response_b", ""), str):
            raise UserError(f"{arguments.file} line {number} has no text in 'response_b'")
    return rows


def _asked(row: Mapping[str, Any]) -> Problem:
    return Problem(id="judged", question=row["question"], answer="")


def _given_groups(path: Path, config: Config) -> list[Group]:
    """Groups of responses that somebody else made, verified here."""
    from spark_rl.verify import Verifier

    groups = []
    with Verifier(config.verify) as verifier:
        for number, row in enumerate(_read_lines(path), 1):
            responses = row.get("responses")
            if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
                raise UserError(f"{path} line {number} has no list of texts in 'responses'")
            if not all(isinstance(row.get(name), str) and row[name] for name in ("question", "answer")):
                raise UserError(f"{path} line {number} needs a 'question' and an 'answer'")
            problem = Problem(
                id=str(row.get("id", f"{path.stem}-{number}")), question=row["question"], answer=row["answer"],
                kind=row.get("kind", "math"),
            )  # fmt: skip
            try:
                verdicts = verifier.verify_many([(r, problem.answer, problem.kind, ()) for r in responses])
            except ValueError as error:
                raise UserError(f"{path} line {number}: {error}") from None
            rollouts = tuple(
                Rollout(Completion(text, (), (), "stop"), verdict)
                for text, verdict in zip(responses, verdicts, strict=True)
            )
            groups.append(Group(problem, rollouts, ()))
    return groups


def _sampled_groups(arguments: argparse.Namespace, config: Config) -> list[Group]:
    """One batch of groups, sampled from the model as a training step would."""
    from spark_rl.clock import Clock
    from spark_rl.data import load_problems
    from spark_rl.rollout import Sampler
    from spark_rl.train import batch_of
    from spark_rl.verify import Verifier

    problems = load_problems(arguments.data or config.data.train, config.data)
    actor = _open(arguments, config)
    with Verifier(config.verify) as verifier:
        sampler = Sampler(actor.engine, actor.chat, verifier, config.rollout)
        return sampler.groups(batch_of(problems, 0, config.rollout.problems, config.seed), config.seed, Clock())


def _of_each_task(problems: Sequence[Problem], count: int) -> list[Problem]:
    """``count`` problems, the three tasks in turn."""
    queues = [[p for p in problems if p.task == task] for task in TASKS if task != "policy"]
    turns = (queue[turn] for turn in range(len(problems)) for queue in queues if turn < len(queue))
    return [problem for problem, _ in zip(turns, range(count), strict=False)]


def _read_lines(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON strings may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            raise UserError(f"{path} line {number} is not JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object")
        yield {key: _encodable(value) for key, value in row.items()}


def _encodable(value: Any) -> Any:
    """Text without lone surrogates, which JSON and command lines may hold and no tokenizer takes."""
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    _say(f"wrote   {path}")


def _say(text: str) -> None:
    """A line that others may read or paste: as it is, never wrapped."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _short(text: str, width: int = 400) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
