"""The commands and their options, as argparse has them. Nothing heavy is imported, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

EPILOG = {
    "train": """\
examples:
  spark-rl train                                        the embedded default, on two cores
  spark-rl train --seed 1 train.steps=20                a shorter run with another seed
  spark-rl train --model Qwen/Qwen2.5-7B-Instruct --data gsm8k_train.jsonl --heldout gsm8k_test.jsonl
  spark-rl train recycle.preset=policy-only             the ablation without recycling
  spark-rl train --resume                               continue the latest run, with the same numbers if the
                                                        machine and its threads are the same
  spark-rl train --resume --run-dir runs/a train.steps=300
  spark-rl train --model latest --data more.jsonl       train the latest run's model further

Every setting can be given as KEY=VALUE; `spark-rl config` lists them all.""",
    "solve": """\
examples:
  spark-rl solve "7*_-4+2=19"
  spark-rl solve "7*_-4+2=19" --model latest             the run that was started last
  spark-rl solve "7*_-4+2=19" --model runs/a             a run; or runs/a/checkpoints/step-000050
  spark-rl solve "7*_-4+2=19" --model http://localhost:8000/v1
  spark-rl solve "How many triangles?" --image figure.png --model Qwen/Qwen2.5-VL-7B-Instruct
  spark-rl solve --file problems.jsonl --out traces.jsonl inference.rounds=4""",
    "judge": """\
examples:
  spark-rl judge --question "7*_-4+2=19" --response "\\boxed{3}"
  spark-rl judge --question "7*_-4+2=19" --response "\\boxed{3}" --other "\\boxed{4}"
  spark-rl judge --question "How many?" --response "\\boxed{3}" --image figure.png
  spark-rl judge --file responses.jsonl --out verdicts.jsonl
                                        (per line: question, response[, response_b][, image or images])""",
    "eval": """\
examples:
  spark-rl eval                                          the embedded base on its held-out puzzles
  spark-rl eval --model runs/a --bench gsm8k,math500 --data-root data --out results/a --json scores.json
  spark-rl eval --model Qwen/Qwen2.5-VL-7B-Instruct --bench math-vlm --data-root data --tts 2 --out results/7b
  spark-rl eval --model http://localhost:8000/v1 --bench aime24 --data-root data --samples 16
  spark-rl eval --model runs/a --data mine.jsonl --judge  any problems that train reads
  spark-rl eval --model runs/a --curve 16 --out curve    what tokens at test time buy, and P(Yes)'s calibration
  spark-rl eval ... --out results/a --resume             continue after a kill; nothing is asked twice
without a model:
  spark-rl eval --bench mathvision --data-root data --responses responses.jsonl
                                                         score what anybody answered (per line: id, response)
  spark-rl eval --list                                   the benchmarks, their files, and whether these are there
  spark-rl eval --list --bench mathvision --out responses.jsonl
                                                         the ids and prompts of its items, to fill responses in
  spark-rl eval --rescore results/a/rows.jsonl           every score once more
  spark-rl eval --table results/a b=results/b --published --format markdown

Groups of benchmarks: math-llm, math-vlm, reward, general, all. Greedy, unless --samples or --temperature say otherwise.
A line of --out holds prompt, response, what each protocol makes of it, and judgement.""",
    "serve": """\
examples:
  spark-rl serve --model runs/a                          a run, on http://127.0.0.1:8000/v1
  spark-rl serve --model embedded-vl --port 9000
  spark-rl serve --model exported --config runs/a/config.json   an exported run, in its own prompts
  SPARK_RL_API_KEY=... spark-rl serve --model runs/a --host 0.0.0.0
  spark-rl serve --upstream http://localhost:8001/v1     in front of vLLM, or any server of OpenAI's protocol
ask it:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{"messages":
    [{"role": "user", "content": "5?4?3?9=32"}], "spark": {"rounds": 2, "trace": true}}'
""",
    "demo": """\
examples:
  spark-rl demo --model latest                           the newest run beside what it began from
  spark-rl demo --model embedded-vl                      drop a picture
  spark-rl demo --model runs/a --base runs/b --data problems.jsonl
  spark-rl demo --model http://localhost:8000/v1         any server of OpenAI's protocol, `spark-rl serve` too""",
    "data": """\
examples:
  spark-rl data gsm8k_train.jsonl                        the first problems, counts, what was refused and why
  spark-rl data train.parquet --model Qwen/Qwen2.5-VL-7B-Instruct --show 1
                                                         with the model's chat template, tokens counted
  spark-rl data openai/gsm8k:main@test data.limit=100    settings as in train""",
    "export": """\
examples:
  spark-rl export runs/a                                 runs/a/export: the model, or the adapters, and a card
  spark-rl export runs/a --merge --out my-model          adapters merged into the model they were trained on
  spark-rl export runs/a --checkpoint 30
  spark-rl export runs/a --merge --push me/my-model      and on the hub (`hf auth login` first)""",
    "recycle": """\
examples:
  spark-rl recycle --show 6                              sample with the embedded base, print recycled problems
  spark-rl recycle rollouts.jsonl --out recycled         anybody's responses as a data set for TRL, verl, OpenRLHF
                                        (per line: prompt, responses, and rewards or an answer[, images])
  spark-rl recycle part-*.parquet --out recycled --push-to-hub me/recycled recycle.balance=true
  spark-rl recycle runs/a --out recycled                 what a run took down""",
    "claims": """\
examples:
  spark-rl claims                                        all claims, on the embedded bases: hours
  spark-rl claims --quick                                the shipped base, one seed, 40 steps: nine minutes
  spark-rl claims judge order                            these only; runs are shared with the others
  spark-rl claims --models embedded,bases/b,bases/c --run-dir runs/claims --json claims.json
  spark-rl claims --config qwen2.5-7b --seeds 0,1 data.heldout=test.jsonl data.transfer=other.jsonl

The same command goes on after a stop. Every setting can be given as KEY=VALUE.""",
    "completion": """\
examples:
  spark-rl completion bash > ~/.local/share/bash-completion/completions/spark-rl
  spark-rl completion zsh > ~/.zfunc/_spark-rl           with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  spark-rl completion fish > ~/.config/fish/completions/spark-rl.fish

A new shell then completes commands, options, their choices, files and settings (rollout.samples=).""",
    "plan": """\
examples:
  spark-rl plan --config qwen2.5-7b --gpus 8 --gpu h100-80gb engine.name=vllm
  spark-rl plan --config qwen2.5-7b --gpu 24             does it fit 24 GiB? what to change if not
  spark-rl plan --model my-model --data mine.jsonl --gpus 4 --price 2.5 --json plan.json""",
    "cost": """\
examples:
  spark-rl cost                                          10 steps of each on the embedded base
  spark-rl cost --steps 45 --repeats 3 --json cost.json --out cost.md
  spark-rl cost --config mine.yaml --run-dir runs/cost-mine seed=3

RM-based RL: responses of the base become preference pairs, a scalar reward model is trained on them, and its score is
the reward of every response. SPARK: verifiable rewards and recycling. Run it on a machine that does nothing else.""",
    "runs": """\
States: starting, running (with the process), finished, stopped, failed (it ended with an error), killed (its process is
gone without an end), damaged. A run that has not finished continues with `spark-rl train --resume --run-dir NAME`.""",
}


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(prog="spark-rl", description="One model learns to solve and to judge, from its own rollouts.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    train = _command(commands, "train", "train a model with SPARK")
    train.add_argument(
        "--config", help="a YAML file, or a recipe's name (default: the embedded base's, tiny or tiny-vl)"
    )
    train.add_argument(
        "--model", help="a directory, a run, 'latest', a hub id, 'embedded', or 'embedded-vl', which sees"
    )
    train.add_argument(
        "--data", action="append",
        help="a JSON, JSONL, CSV, TSV or Parquet file, a hub data set, or procedural:FAMILY; again for more of them",
    )  # fmt: skip
    train.add_argument("--heldout", help="problems to evaluate on before and after, never trained on; or split:N")
    train.add_argument("--run-dir", metavar="DIR", help="where to write the run (default: runs/<time>-seed<seed>)")
    train.add_argument("--seed", type=int, help="the run's one seed")
    train.add_argument(
        "--resume", action="store_true", help="continue the run in --run-dir, or the latest, from where it stopped"
    )

    solve = _command(commands, "solve", "answer, judge the answer, reflect: test-time scaling")
    solve.add_argument("question", nargs="?", help="one question (or use --file)")
    _model_options(solve)
    _image_option(solve)
    solve.add_argument("--file", type=Path, help="a file of problems, in any layout that train reads")
    solve.add_argument("--out", type=Path, help="write one JSON line per problem, with every round")

    judge = _command(commands, "judge", "judge given responses, one at a time or in pairs")
    _model_options(judge)
    judge.add_argument("--question", help="the question that was answered")
    judge.add_argument("--response", help="the response to judge")
    judge.add_argument("--other", help="a second response; the model says which of the two is right")
    _image_option(judge)
    judge.add_argument("--file", type=Path, help="JSON lines with question, response and perhaps response_b, images")
    judge.add_argument("--out", type=Path, help="write one JSON line per judgement")

    _add_serve(commands)
    _add_demo(commands)
    _add_eval(commands)

    recycle = _command(commands, "recycle", "turn rollouts into judge and reflection problems")
    recycle.add_argument(
        "files", nargs="*", metavar="FILE",
        help="responses to recycle, JSON lines or Parquet, or a run; without any, some are sampled",
    )  # fmt: skip
    _model_options(recycle)
    recycle.add_argument("--data", help="problems to sample from (default: the recipe's)")
    recycle.add_argument("--rollouts", type=Path, help="the same as FILE")
    recycle.add_argument("--show", type=_count, default=4, metavar="N", help="print N recycled problems (default: 4)")
    recycle.add_argument(
        "--out", type=Path, help="a folder: write a data set that TRL, verl and OpenRLHF read; NAME.jsonl: JSON lines"
    )
    recycle.add_argument("--push-to-hub", metavar="REPO", help="put the data set on the hub too, as NAME or OWNER/NAME")
    recycle.add_argument("--private", action="store_true", help="of --push-to-hub: a new repository is private")
    recycle.add_argument("--seed", type=int, help="seed of the sampling and the recycling")

    data = _command(commands, "data", "show problems as a model will read them, and what is refused of their file")
    data.add_argument("source", nargs="?", metavar="DATA", help="whatever --data of train takes (default: a recipe's)")
    data.add_argument("--model", help="whose chat template and tokenizer to show; no weights are read")
    data.add_argument("--config", help="a YAML file or recipe name")
    data.add_argument("--show", type=_count, default=3, metavar="N", help="show the first N problems (default: 3)")

    _add_plan(commands)
    _add_runs(commands)
    completion = _command(commands, "completion", "what your shell completes, as a script for it", overrides=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="yours")
    completion.set_defaults(parser=parser)
    return parser


def _add_serve(commands: Any) -> None:
    serve = _command(commands, "serve", "serve a model in OpenAI's protocol: it answers, judges itself and reflects")
    add = serve.add_argument
    add("--model", help="a run, 'latest', a model directory, a hub id, 'embedded' (the default), or 'embedded-vl'")
    add("--config", help="a YAML file or recipe name, for a model that is not a run")
    add("--upstream", metavar="URL", help="serve no model here, but stand in front of this server")
    add("--served-model", metavar="NAME", help="which model of --upstream (default: the one it serves)")
    add("--served-model-name", metavar="NAME", help="what clients call the model (default: the run, or --model)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=_count, default=8000, help="0 takes a free one (default: 8000)")
    add(
        "--api-key-env", default="SPARK_RL_API_KEY", metavar="NAME",
        help="the variable with the key that clients must send (default: SPARK_RL_API_KEY; no key if it is not set)",
    )  # fmt: skip
    add("--requests", type=_positive, default=256, metavar="N", help="under way at a time, else 429 (default: 256)")
    add("--timeout", type=_positive, default=600, metavar="S", help="seconds of a request, else 408 (default: 600)")
    add("--max-tokens", type=_positive, metavar="N", help="of a completion at most, whatever a request says")


def _add_demo(commands: Any) -> None:
    demo = _command(commands, "demo", "a page in the browser to try a model on: it answers, judges itself and reflects")
    add = demo.add_argument
    _model_options(demo)
    add("--base", metavar="MODEL", help="compare with this one, or 'none' (default: what the run began from)")
    add("--data", help="problems to browse (default: the held-out ones of the run or recipe)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    add("--port", type=_count, default=7860, help="0 takes a free one (default: 7860)")


def _add_plan(commands: Any) -> None:
    plan = _command(commands, "plan", "what a run takes: memory a GPU, time, cost; what to change if it doesn't fit")
    add = plan.add_argument
    add("--config", help="a YAML file, or a recipe's name (default: tiny)")
    add("--model", help="a directory, a run, or a hub id; only its configuration is read")
    add("--data", action="append", help="problems whose prompts are counted (default: the recipe's)")
    add("--gpu", default="h100-80gb", metavar="KIND", help="h100-80gb (the default), a100-40gb, ..., or a size in GiB")
    add(
        "--gpus",
        type=_positive,
        default=1,
        metavar="N",
        help="a learner's rank and an engine on each (default: 1)",
    )
    add("--prompt-tokens", type=_positive, metavar="N", help="of a prompt on average (default: counted, else 512)")
    add("--response-tokens", type=_positive, metavar="N", help="of a response on average (default: 60%% of the limit)")
    add("--problems", type=_positive, metavar="N", help="problems of the data, for the hours (default: counted)")
    add("--price", type=_price, metavar="X", help="of a GPU for an hour; prints the cost of the run")


def _add_runs(commands: Any) -> None:
    """The commands about runs and settings."""
    ablate = _command(commands, "ablate", "train the paper's arms side by side, several seeds each")
    ablate.add_argument("--config", default="tiny", help="a YAML file or recipe name (default: tiny)")
    ablate.add_argument("--arms", default="policy-only,reward-only,policy-and-reward,spark", help="comma-separated")
    ablate.add_argument("--seeds", default="0,1,2", help="comma-separated (default: 0,1,2)")
    ablate.add_argument(
        "--run-dir", type=Path, default=Path("runs/ablation"), help="one run per arm and seed goes here"
    )
    ablate.add_argument("--jobs", type=_positive, metavar="N", help="runs at a time, on a thread each (default: cores)")

    _add_claims(commands)

    _add_cost(commands)
    report = _command(commands, "report", "write the HTML report of a run again, or compare runs", overrides=False)
    report.add_argument(
        "run_dirs", type=Path, metavar="RUN", nargs="+",
        help="a run: its directory, its name below runs/, or latest; several are compared on one page",
    )  # fmt: skip
    report.add_argument("--out", type=Path, metavar="FILE", help="where a comparison goes (default: comparison.html)")
    runs = _command(commands, "runs", "list runs: model, data, steps, scores, state", overrides=False)
    runs.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="where they are (default: runs)")
    _add_export(commands)
    doctor = _command(commands, "doctor", "what this machine can run", overrides=False)
    doctor.add_argument("--gpu", action="store_true", help="try what only a GPU can show, and say what that proved")
    config = _command(commands, "config", "list every setting with its default, or check a configuration")
    config.add_argument("--config", help="a YAML file or recipe name to resolve and print")
    config.add_argument("--markdown", type=Path, metavar="FILE", help="write the list of settings as Markdown")


def _add_cost(commands: Any) -> None:
    cost = _command(commands, "cost", "what RM-based RL and SPARK take, side by side in one process (Table 7)")
    add = cost.add_argument
    add("--config", default="tiny", help="a YAML file or recipe name (default: tiny)")
    add("--steps", type=_positive, default=10, metavar="N", help="of reinforcement learning, in each (default: 10)")
    add("--repeats", type=_positive, default=1, metavar="N", help="with seeds of their own (default: 1)")
    add("--rm-problems", type=_positive, default=256, metavar="N", help="whose responses become pairs (default: 256)")
    add("--rm-epochs", type=_positive, default=1, metavar="N", help="of the reward model's training (default: 1)")
    add("--rm-lr", type=_rate, metavar="X", help="of the reward model's training (default: 10 * optimiser.lr)")
    add("--run-dir", type=Path, default=Path("runs/cost"), metavar="DIR", help="goes on where it stopped there")
    add("--out", type=Path, metavar="FILE", help="also write the tables as Markdown")


def _add_eval(commands: Any) -> None:
    evaluate = _command(
        commands, "eval", "ask a model benchmarks or any problems: accuracy, judge accuracy, test-time scaling"
    )
    _model_options(evaluate)
    add = evaluate.add_argument
    add("--engine", metavar="NAME", help="engine.name: embedded (the default), vllm, or FILE.py:CLASS")
    add(
        "--bench",
        action="append",
        default=[],
        metavar="NAMES",
        help="benchmarks or groups of them, comma-separated; FILE.py for yours",
    )
    add("--data-root", type=Path, metavar="DIR", help="the folder of the benchmarks' files")
    add("--data", action="append", default=[], metavar="SPEC", help="problems that train reads; again for more sets")
    add("--list", action="store_true", help="list the benchmarks; with --bench or --data their items and ids instead")
    add("--limit", type=_positive, metavar="N", help="only the first N rows of each set")
    add("--protocol", action="append", default=[], metavar="NAMES", help="score by these only: reference, rule, ...")
    add("--tts", type=_count, default=0, metavar="N", help="judge and reflect, N rounds (default: 0)")
    add("--samples", type=_positive, default=1, metavar="K", help="K answers each: avg@K, pass@k, maj@K (default: 1)")
    add(
        "--curve", type=_positive, metavar="N",
        help="accuracy against tokens of voting, best-of-n and rounds, from N answers each, into the folder --out",
    )  # fmt: skip
    add(
        "--temperature", type=_temperature, metavar="T",
        help="of the answers (default: greedy; 0.7 with --samples and --curve)",
    )  # fmt: skip
    add("--judge", action="store_true", help="let the model judge its own answers too")
    add("--grader", metavar="URL", help="who grades where a benchmark wants a language model to: a server, or 'self'")
    add("--grader-model", metavar="NAME", help="which model of the grader's server")
    add("--out", type=Path, metavar="PATH", help="write rows as they are asked: FILE.jsonl, FILE.parquet, or a folder")
    add("--resume", action="store_true", help="continue --out where it stopped")
    add("--responses", type=Path, metavar="FILE", help="score these lines (id, response) instead of asking a model")
    add("--rescore", type=Path, metavar="FILE", help="compute every score of such rows again, without a model")
    add("--table", nargs="+", metavar="FILE", help="lay result files or folders out as the paper's tables; LABEL=FILE")
    add("--format", choices=("terminal", "markdown", "latex", "csv"), help="of --table (default: terminal)")
    add("--paper-table", action="append", default=[], metavar="NUMBERS", help="of --table: only these of the paper's")
    add("--base", metavar="LABEL", help="of --table: add every row's differences from this one")
    add("--published", action="store_true", help="put the paper's rows beside, marked as published")


def _add_claims(commands: Any) -> None:
    claims = _command(commands, "claims", "run the paper's claims, each with seeds and bases, and decide them")
    add = claims.add_argument
    add("claims", nargs="*", metavar="CLAIM", help="only these (default: all)")
    add("--list", action="store_true", help="list the claims and run nothing")
    add("--quick", action="store_true", help="the recipe tiny, one seed, 40 steps, 100 problems: nine minutes")
    add("--config", help="a YAML file or recipe name (default: claims; tiny with --quick)")
    add(
        "--arm", nargs=2, action="append", default=[], metavar=("NAME", "SETTINGS"),
        help="compare settings of your own, 'KEY=VALUE ...', with SPARK and policy-only at equal tokens",
    )  # fmt: skip
    add(
        "--models",
        metavar="NAMES",
        help="the bases, comma-separated (default: bases/shared-0, -1, -2, or the recipe's)",
    )
    add("--seeds", metavar="NUMBERS", help="comma-separated (default: 0,1,2,3,4)")
    add("--jobs", type=_positive, metavar="N", help="runs at a time, on a thread each (default: cores)")
    add("--run-dir", type=Path, default=Path("runs/claims"), help="runs and pages go here (default: runs/claims)")


def _add_export(commands: Any) -> None:
    export = _command(
        commands, "export", "write the model of a run as a folder that transformers loads, with its card",
        overrides=False,
    )  # fmt: skip
    export.add_argument("run", metavar="RUN", help="a run: its directory, its name below runs/, or latest")
    export.add_argument("--out", type=Path, metavar="DIR", help="the new folder (default: RUN/export or RUN/merged)")
    export.add_argument("--merge", action="store_true", help="merge adapters into the model they were trained on")
    export.add_argument(
        "--checkpoint", type=_checkpoint, metavar="N|best", help="of this step, or the best (default: the final model)"
    )
    export.add_argument("--push", metavar="REPO", help="put it on the hub too, as NAME or OWNER/NAME")
    export.add_argument("--private", action="store_true", help="of --push: a new repository is private")


class _Parser(argparse.ArgumentParser):
    """One line per mistake, instead of the usage text."""

    def error(self, message: str) -> Any:
        print(f"spark-rl: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _command(commands: Any, name: str, about: str, *, overrides: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about, epilog=EPILOG.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the facts as JSON; - for stdout")
    parser.set_defaults(code=0)  # how a command that ran to its end exits
    if overrides:
        parser.set_defaults(overrides=[])
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        help="a run, 'latest', a model directory, a hub id, 'embedded' (the default), 'embedded-vl', or a server's "
        "http://...",
    )
    parser.add_argument("--served-model", metavar="NAME", help="which model of the server (default: the one it serves)")
    parser.add_argument("--config", help="a YAML file or recipe name, for a model that is not a run")


def _image_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image", action="append", default=[], metavar="PATH",
        help="an image of the question; again for more, in the order of its <image> markers, if it has any",
    )  # fmt: skip


def _checkpoint(text: str) -> str:
    if text != "best" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither the step of a checkpoint nor 'best'")
    return text if text == "best" else str(int(text))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _temperature(text: str) -> float:
    return _from_zero(text, "number")


def _price(text: str) -> float:
    return _from_zero(text, "price")


def _rate(text: str) -> float:
    value = _from_zero(text, "learning rate")
    if not value:
        raise argparse.ArgumentTypeError("0 would train nothing; give a learning rate above it")
    return value


def _from_zero(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a {what} from 0")
    return value
