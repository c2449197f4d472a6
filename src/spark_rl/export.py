"""From a run to a model folder that plain transformers loads, with its card, and from there to the hub.

A folder is written beside its place and renamed, so nobody sees a part of it. Nothing is written over.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from safetensors import SafetensorError

from spark_rl.config import parse_config, saved_settings
from spark_rl.errors import ConfigError
from spark_rl.files import read_object, resolved, whole_folder, write_json
from spark_rl.manifest import MANIFEST
from spark_rl.model.places import ADAPTERS, has_adapters
from spark_rl.report.card import CARD, hub_base, model_card, write_card
from spark_rl.runs import checkpoints, is_run, step_of, trained_weights, undamaged

__all__ = ["check_place", "check_push", "export_run", "model_card", "push", "push_data", "weights_at", "write_card"]

_TOKEN = re.compile(r"hf_\w+")


def export_run(
    run: str | Path, out: str | Path | None = None, merge: bool = False, checkpoint: int | str | None = None
) -> Path:
    """Write the model of a run as a folder of its own, with its card; returns the folder.

    Adapters stay adapters, which need their base, unless ``merge`` puts them into it. The number format is the run's.

    Args:
        run: the run's directory.
        out: the folder, which must not be there yet or be empty; ``None`` is ``export``, or ``merged``, in the run.
        merge: merge adapters into the model.
        checkpoint: the step of a checkpoint, or ``best``; ``None`` is the final model, else the newest checkpoint.

    Raises:
        ConfigError: there is no such run or checkpoint, or the folder can't be written.
    """
    run = Path(run)
    weights = weights_at(run, checkpoint)
    merge = merge and has_adapters(weights)
    folder = check_place(run, out, merge)
    settings = saved_settings(run)
    if has_adapters(weights) and not merge:
        check_base(weights)
    with whole_folder(folder, SafetensorError) as scratch:
        if merge:
            _write_merged(run, weights, scratch)
        else:
            for file in (path for path in sorted(weights.rglob("*")) if path.is_file()):
                if file.name in {CARD, MANIFEST}:
                    continue
                (scratch / file.relative_to(weights)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, scratch / file.relative_to(weights))
            if has_adapters(scratch) and (base := hub_base(settings, direct=True)) is not None:
                written = read_object(scratch / ADAPTERS)
                write_json(scratch / ADAPTERS, written | {"base_model_name_or_path": base})
        (scratch / CARD).write_text(model_card(run, weights, merged=merge), encoding="utf-8")
    return folder


def push(folder: str | Path, repo: str, private: bool | None = None, *, token: str | None = None,
         message: str = "Trained with spark-rl", revision: str | None = None) -> str:  # fmt: skip
    """Put a model folder into a repository of the hub, which is made if there is none; returns its address.

    Args:
        folder: what :func:`export_run` wrote, or any model folder.
        repo: ``name`` or ``owner/name``.
        private: whether a new repository is; ``None`` is what the account says.
        token: ``None`` takes the one that this machine is logged in with.
        message: of the commit.
        revision: the branch.

    Raises:
        ConfigError: the hub can't be reached or says no, or what the folder holds could not be loaded elsewhere.
    """
    folder = Path(folder)
    check_push(repo, token)
    if not ((folder / "config.json").is_file() or has_adapters(folder)):
        raise ConfigError(f"{folder} holds no model to push; spark-rl export writes one")
    base = read_object(folder / ADAPTERS).get("base_model_name_or_path")
    if base and Path(str(base)).is_absolute():
        raise ConfigError(f"the base of the adapters in {folder} is a folder of this disk, which nobody else has; "
                          "export with --merge")  # fmt: skip
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub_errors(repo):
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message, revision=revision)
    return str(made)


def push_data(folder: Path, repo: str, private: bool | None = None, *, token: str | None = None) -> str:
    """Put the folder of a data set into a repository of the hub, which is made if there is none; returns its address.

    Raises:
        ConfigError: the hub can't be reached or says no.
    """
    check_push(repo, token)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub_errors(repo):
        made = api.create_repo(repo, private=private, exist_ok=True, repo_type="dataset")
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, repo_type="dataset",
                          commit_message="Recycled with spark-rl")  # fmt: skip
    return str(made)


def weights_at(run: Path, checkpoint: int | str | None = None) -> Path:
    """The folder of weights of a run: its final ones, or those of a checkpoint.

    Raises:
        ConfigError: there is no such run or checkpoint; the line names those that there are.
    """
    if not is_run(run):
        raise ConfigError(f"{run} is not a run; export takes the directory of one")
    if checkpoint is None:
        return trained_weights(run)
    saved = {str(step_of(path)): path for path in checkpoints(run)}
    if checkpoint == "best":
        if (run / "best").is_dir():
            return undamaged(resolved(run / "best")) / "model"
        raise ConfigError(f"{run} marks no checkpoint as its best; train with train.eval_every, or name a step: "
                          f"{_listed(saved)}")  # fmt: skip
    if str(checkpoint) not in saved:
        raise ConfigError(f"{run} has no checkpoint of step {checkpoint}; it has {_listed(saved)}")
    return undamaged(saved[str(checkpoint)]) / "model"


def _listed(saved: dict[str, Path]) -> str:
    return ", ".join(saved) or "none"


def check_place(run: Path, out: str | Path | None, merge: bool) -> Path:
    """The folder to write, which is not there yet or empty.

    Raises:
        ConfigError: it is neither, or can't be made.
    """
    folder = run / ("merged" if merge else "export") if out is None else Path(out)
    try:
        if folder.is_dir() and not any(folder.iterdir()):
            return folder
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from None
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is there already; remove it or choose another --out")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"cannot write {folder}: {above} is {'not writable' if above.is_dir() else 'a file'}")
    return folder


def check_base(weights: Path) -> None:
    """Refuse to copy adapters that plain transformers could not load.

    Raises:
        ConfigError: their base is made of adapters too.
    """
    base = str(read_object(weights / ADAPTERS).get("base_model_name_or_path") or "")
    if has_adapters(base):
        raise ConfigError(f"the base of these adapters, {base}, is one of adapters itself, which only spark-rl puts "
                          "together; export with --merge")  # fmt: skip


def check_push(repo: str, token: str | None = None) -> None:
    """Find out without the network whether something could be pushed.

    Raises:
        ConfigError: it could not.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with _hub_errors(repo):
        validate_repo_id(repo)
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"cannot push to {repo!r}: the hub is not asked (HF_HUB_OFFLINE is set)")
    if token is None and get_token() is None:
        raise ConfigError(f"cannot push to {repo!r}: nobody is logged in; run `hf auth login` or set HF_TOKEN")


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Errors of the hub's client as one line, without the token."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    broken = sys.modules.get("httpx2", httpx).HTTPError  # which of the two the hub's client has
    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, broken, OSError, ValueError) as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        why = _TOKEN.sub("hf_...", " ".join(str(error).split()))[:200] or type(error).__name__
        hint = "; log in with `hf auth login` as someone who may write there" if code in {401, 403} else ""
        raise ConfigError(f"cannot push to {repo!r}: {why}{hint}") from None


def _write_merged(run: Path, weights: Path, folder: Path) -> None:
    """The model with its adapters added into its weights, proven to be what engine and learner computed."""
    from spark_rl.model.load import load_model

    settings = saved_settings(run)
    plain: dict[str, Any] = {
        "lora": None,
        "device": "cpu",
        "attention": "sdpa",
        "gradient_checkpointing": False,
        "freeze": [],
    }
    config = parse_config(settings | {"model": settings["model"] | plain})
    loaded = load_model(config, weights)
    loaded.causal_lm.save_pretrained(folder)
    (loaded.processor or loaded.tokenizer).save_pretrained(folder)
