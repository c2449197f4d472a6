"""The model card of a run: what was trained on what and how, with which result, and the command that repeats it.

It is ``README.md`` of a model folder in the form that the hub reads: YAML about the model, then text. The licence is
left to whoever publishes the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from spark_rl.config import IN_MEMORY
from spark_rl.errors import UserError
from spark_rl.files import read_object, write_atomically
from spark_rl.model.places import ADAPTERS, EMBEDDED, HUB_ID
from spark_rl.report.comparison import compare, problems_note
from spark_rl.report.metrics import read_metrics
from spark_rl.report.notation import plain
from spark_rl.report.repeat import asking_command, near, repeating_command
from spark_rl.runs import run_of, step_of, trained_weights

PAPER = "https://arxiv.org/abs/2509.22624"
CARD = "README.md"
TAGS = ("spark-rl", "reinforcement-learning", "rlvr", "grpo", "generative-reward-model")
RUNS = 32
"""Runs upon runs that are followed to the model that all began with."""
_LOCAL_FILES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")


def model_card(run: str | Path, weights: str | Path | None = None, *, merged: bool = False) -> str:
    """The card of a run's model.

    Args:
        run: the run's directory.
        weights: the folder of its model that the card is about; ``None`` is the final one, else that of the newest
            checkpoint.
        merged: whether its adapters are merged into the model that the card lies beside.

    Raises:
        ConfigError: the run has no trained model.
        UserError: its ``config.json`` or ``summary.json`` hold what no run writes.
    """
    run = Path(run)
    weights = trained_weights(run) if weights is None else Path(weights)
    try:
        return _card(run, weights, merged=merged)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"config.json or summary.json of {run} hold what no run writes ({why}); restore them") from None


def _card(run: Path, weights: Path, *, merged: bool) -> str:
    settings, summary = read_object(run / "config.json"), read_object(run / "summary.json")
    adapters = (weights / ADAPTERS).is_file() and not merged
    final = weights.parent == run
    return "\n".join([
        "---", yaml.safe_dump(_header(settings, weights, adapters), sort_keys=False, allow_unicode=True) + "---", "",
        f"# {run.name}", "", *_what(settings, adapters, weights), "",
        "## Training", "", *_training(run, settings, summary, weights), "",
        "## Scores", "", *(_scores(summary) if final else _checkpoint(summary, weights)), "",
        "## Use", "", *_use(settings, weights), "",
        "## Repeat", "", *_repeat(settings, summary), "",
        "## Licence", "",
        "Not stated yet: whoever publishes this model adds `license:` to the head of this file. The licences of the "
        "base model and of the data apply.", "",
    ])  # fmt: skip


def write_card(run: str | Path) -> Path:
    """Write the card of a finished run beside its final model.

    Raises:
        ConfigError: the run has no trained model.
        OSError: it can't be written.
    """
    path = Path(run) / "model" / CARD
    write_atomically(path, model_card(run, path.parent).encode())
    return path


def _header(settings: Mapping[str, Any], weights: Path, adapters: bool) -> dict[str, Any]:
    """What the hub reads."""
    base = hub_base(settings, direct=adapters)
    hub_sets = [name for name in map(_hub_set, _sources(settings)) if name is not None]
    return {
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": "image-text-to-text" if _sees(weights) else "text-generation",
        **({"base_model": base, "base_model_relation": "adapter" if adapters else "finetune"} if base else {}),
        **({"datasets": list(dict.fromkeys(hub_sets))} if hub_sets else {}),
        "tags": [*TAGS, *(["lora"] if adapters else [])],
    }


def hub_name(path: str) -> str | None:
    """The hub id of a model by the setting ``model.path``, of its copy in the hub's cache too; ``None`` for others."""
    cached = [part for part in Path(path).parts if part.startswith("models--")]
    name = cached[-1].removeprefix("models--").replace("--", "/") if cached else path
    on_hub = name not in EMBEDDED and HUB_ID.fullmatch(name) and not Path(name).exists()
    return name if on_hub else None


def hub_base(settings: Mapping[str, Any], *, direct: bool = False) -> str | None:
    """The hub id of the model that a run began with, or, unless ``direct``, of the one that the run before it began
    with; ``None`` if it is of this disk.
    """
    name = _begun_with(settings)
    for _ in range(0 if direct else RUNS):
        before = run_of(Path(name)) if Path(name).is_absolute() else None
        if before is None:
            break
        name = _begun_with(read_object(before / "config.json"))
    return hub_name(name)


def _begun_with(settings: Mapping[str, Any]) -> str:
    return str(settings.get("model", {}).get("path") or "")


def _what(settings: Mapping[str, Any], adapters: bool, weights: Path) -> Iterator[str]:
    path, base = _begun_with(settings), hub_base(settings, direct=adapters)
    named = (f"[{base}](https://huggingface.co/{base})" if base else
             f"`{path}`, a tiny base that ships with spark-rl" if path in EMBEDDED else
             "a model given from Python" if path.startswith(IN_MEMORY) else f"`{near(path)}`")  # fmt: skip
    kind = "Adapters for" if adapters else "A model trained from"
    yield (f"{kind} {named}, by reinforcement learning with [SPARK]({PAPER}): one model learns to solve problems, to "
           "judge responses and to correct them, from its own verified rollouts.")  # fmt: skip
    if _sees(weights):
        yield "It reads text and images."


def _training(run: Path, settings: Mapping[str, Any], summary: Mapping[str, Any], weights: Path) -> Iterator[str]:
    """A table of what was done."""
    model, rollout = settings.get("model", {}), settings.get("rollout", {})
    recycle, optimiser, count = settings.get("recycle", {}), settings.get("optimiser", {}), summary.get("problems")
    lora = model.get("lora")
    recycled = [name for name in ("pointwise", "pairwise", "reflection") if recycle.get(name)]
    trained = "all weights" if lora is None else (
        f"LoRA, rank {lora['rank']}, alpha {plain(lora['alpha'])}, dropout {plain(lora.get('dropout', 0.0))}, "
        + (lora["target_modules"] if isinstance(lora["target_modules"], str) else ", ".join(lora["target_modules"]))
    )  # fmt: skip
    frozen = [f"`{name}`" for name in model.get("freeze", ()) if _sees(weights) or name not in {"vision", "projector"}]
    data = "; ".join(map(_named_set, _sources(settings)))
    if isinstance(count, Mapping) and count.get("train"):
        data += f" ({count['train']:,} problems)"
    step = _step(run, weights)
    yield "| | |"
    yield "| --- | --- |"
    for name, value in (
        ("data", data),
        ("method", f"SPARK: {'problems, ' if settings.get('train', {}).get('policy_update', True) else ''}"
                   + (f"recycled as {', '.join(recycled)}" if recycled else "no recycling (GRPO)")),
        ("steps", f"{step:,} of {rollout.get('problems')} problems, {rollout.get('samples')} responses each, "
                  f"at most {rollout.get('max_new_tokens')} tokens" if step is not None else "none"),
        ("tokens", f"{summary['tokens']:,} generated" if summary.get("tokens") and weights.parent == run else ""),
        ("trained", trained + (f"; frozen: {', '.join(frozen)}" if frozen else "")),
        ("optimiser", f"AdamW, learning rate {plain(optimiser.get('lr'))}, {optimiser.get('schedule')}, "
                      f"KL {plain(settings.get('objective', {}).get('kl'))}"),
        ("number format", str(model.get("dtype"))),
        ("seed", str(settings.get("seed"))),
    ):  # fmt: skip
        if value:
            yield f"| {name} | {value} |"


def _scores(summary: Mapping[str, Any]) -> Iterator[str]:
    """The tables of before and after."""
    transfer = summary.get("transfer") or {}
    exams = [("Held-out problems", summary.get("before"), summary.get("after")),
             ("Problems of a kind that was not trained on", transfer.get("before"), transfer.get("after"))]  # fmt: skip
    measured = False
    for title, before, after in exams:
        if not before and not after:
            continue
        measured = True
        yield f"{title}, {problems_note(before, after)}:"
        yield ""
        yield "| percent | before | after | change |"
        yield "| --- | --- | --- | --- |"
        for row in compare(before, after):
            yield f"| {row.label} | {' | '.join(row.written())} |"
        yield ""
    yield ("± is half of the 95 % interval (Wilson). None of these problems was trained on. Greedy, unless the "
           "settings say otherwise." if measured else "Not measured: the run had no held-out problems.")  # fmt: skip


def _checkpoint(summary: Mapping[str, Any], weights: Path) -> Iterator[str]:
    """What is known of a checkpoint."""
    step, best = _step(weights.parents[2], weights), summary.get("best") or {}
    if step is not None and best.get("step") == step:
        score = 100 * float(best.get("score") or 0)
        yield f"The best checkpoint of its run by {best.get('metric')}: {score:.1f} % on held-out problems."
    else:
        yield "Not measured: this is a checkpoint, and scores are of a run's end."


def _use(settings: Mapping[str, Any], weights: Path) -> Iterator[str]:
    """Asking it as it was asked in training."""
    chat = settings.get("chat", {})
    kind, words = (("AutoModelForImageTextToText", "AutoProcessor") if _sees(weights)
                   else ("AutoModelForCausalLM", "AutoTokenizer"))  # fmt: skip
    name = "processor" if _sees(weights) else "tokenizer"
    yield "```python"
    yield f"from transformers import {kind}, {words}"
    yield ""
    yield f'model = {kind}.from_pretrained("PATH")'
    yield f'{name} = {words}.from_pretrained("PATH")'
    yield "```"
    yield ""
    yield "or, which answers, judges and corrects with the prompts of training,"
    yield ""
    yield "```sh"
    yield asking_command(settings)
    yield "```"
    yield ""
    yield "In training a question was:"
    yield ""
    yield from (f"    {line}" for line in str(chat.get("policy", "{question}")).splitlines())
    if chat.get("system"):
        yield ""
        yield "after the system prompt:"
        yield ""
        yield from (f"    {line}" for line in str(chat["system"]).splitlines())


def _repeat(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[str]:
    versions = summary.get("versions") or {}
    command = repeating_command(settings)
    if command is None:
        yield "Trained from Python, on what was in memory; the settings are in `config.json` of its run."
    else:
        yield "```sh"
        yield command
        yield "```"
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if known:
        yield ""
        yield f"With {known}. The same numbers come out, to the bit, on the same kind of machine with the same threads."


def _sources(settings: Mapping[str, Any]) -> Sequence[str]:
    train = settings.get("data", {}).get("train") or ()
    entries = [train] if isinstance(train, str) else train
    return [str(entry if isinstance(entry, str) else entry.get("source")) for entry in entries]


def _hub_set(source: str) -> str | None:
    """The hub id of a data set, or ``None`` for anything else."""
    name = source.partition("@")[0].partition(":")[0]
    local = source.startswith((IN_MEMORY, "procedural:")) or name.endswith(_LOCAL_FILES) or Path(name).exists()
    return name if HUB_ID.fullmatch(name) and not local else None


def _named_set(source: str) -> str:
    hub = _hub_set(source)
    if hub is not None:
        return f"[{source}](https://huggingface.co/datasets/{hub})"
    return source.removeprefix(IN_MEMORY) if source.startswith(IN_MEMORY) else f"`{near(source)}`"


def _sees(weights: Path) -> bool:
    return any((weights / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))


def _step(run: Path, weights: Path) -> int | None:
    """How many steps the weights have behind them."""
    if weights.parent != run:
        return step_of(weights.parent)
    try:
        records = read_metrics(run / "metrics.jsonl")
    except OSError:
        return None
    return int(records[-1]["step"]) if records else None
