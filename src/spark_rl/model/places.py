"""Where a model lies: an embedded base, a directory, a run, the base of saved adapters, or the hub.

A path that is mistyped is answered at once, with the nearest thing that exists: only what can be nothing else goes to
the hub, which is asked once and briefly before anything is loaded. Nothing here imports torch.
"""

from __future__ import annotations

import difflib
import logging
import re
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from spark_rl.config import IN_MEMORY
from spark_rl.errors import ConfigError
from spark_rl.files import check_regular, read_object, resolved, user_path
from spark_rl.runs import is_checkpoint, is_run, placed, run_of, trained_weights

logger = logging.getLogger(__name__)

_BASES = Path(__file__).parents[1] / "embedded"
EMBEDDED = {"embedded": _BASES / "text", "embedded-vl": _BASES / "vision"}
"""The tiny bases that ship with the package: one reads, the other also sees."""
RECIPES = {"embedded": "tiny", "embedded-vl": "tiny-vl"}
"""Embedded base -> the recipe that it is used with where no configuration is given."""

ADAPTERS = "adapter_config.json"
"""The file that makes a directory one of adapters (peft)."""

HUB_ID = re.compile(r"(?=.{1,96}$)(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?(?<![.-])", re.ASCII)
"""``name`` or ``owner/name``; nothing else is a name on the hub."""
HUB_SECONDS = 5.0
"""How long the hub may take to say whether it has a model."""


def find_model(name: str | Path) -> str:
    """The absolute directory of a model, or a hub id that the hub, or its cache on this disk, knows.

    Args:
        name: an embedded base's name, a directory with a model or with adapters, a run (``latest``, its name below
            ``runs/`` or its directory: its final model is meant, or its newest checkpoint), one of its checkpoints, or
            a hub id.

    Raises:
        ConfigError: there is no such model; the line names the nearest thing that exists.
    """
    text = str(name)
    if text in EMBEDDED:
        return str(EMBEDDED[text])
    if text.startswith(IN_MEMORY):
        raise ConfigError(f"the model {text!r} was given from Python and lies nowhere; name a model in its place, or "
                          "go on in the script that began the run: train(resume_from_checkpoint=True)")  # fmt: skip
    path = placed(user_path(text))
    if _is_dir(path):
        return str(check_regular(_model_in(resolved(path), text)))
    if _is_dir(path.parent) and path.name in _names_in(path.parent):
        raise ConfigError(f"{text!r} is a file; give the directory that it lies in: {resolved(path).parent}")
    if cached_copy(text) is not None:
        return text
    near = nearest(path) or next(iter(difflib.get_close_matches(text, EMBEDDED, n=1, cutoff=0.8)), None)
    if not HUB_ID.fullmatch(text) or ("/" in text and _is_dir(path.parent)) or near is not None:
        raise ConfigError(
            f"there is no model at {text!r}{_meant(near)}; model.path is a directory, a hub id or an embedded base"
        )
    if (why := _hub_refusal(text)) is not None:
        raise ConfigError(f"cannot load the model {text!r}: it is not on this disk, and {why}")
    return text


def on_disk(found: str) -> str:
    """What :func:`find_model` found, with a hub id replaced by its copy in the cache where the hub can't be reached.

    Reading it as a hub id would try to reach the hub again and again, file by file.
    """
    copy = None if Path(found).is_absolute() else cached_copy(found)
    return found if copy is None or _hub_refusal(found) is None else str(copy)


def has_adapters(source: str | Path) -> bool:
    """Whether a directory holds adapters and not a whole model."""
    return (Path(source) / ADAPTERS).is_file()


def layers_of(source: str, base: str | None = None) -> tuple[str, tuple[Path, ...]]:
    """The whole model beneath, and the directories of adapters upon it, the innermost first.

    Args:
        source: what :func:`find_model` found.
        base: where the base of the adapters in ``source`` is now, if that is known better than they know it.

    Raises:
        ConfigError: a base is not there any more.
    """
    stack: list[Path] = []
    while has_adapters(source):
        folder = Path(source)
        if folder in stack:
            raise ConfigError(f"the adapters in {folder} name themselves as their base; mend its {ADAPTERS}")
        stack.append(folder)
        source, base = base or base_of(folder), None
    return source, tuple(reversed(stack))


def base_of(folder: Path) -> str:
    """The model that saved adapters belong to, wherever this process was started and wherever the run was moved.

    Looked for are the path in ``adapter_config.json``, the same from the directories above the adapters, the embedded
    base of that name, and ``model.path`` of the adapters' run.

    Raises:
        ConfigError: it is nowhere; the line says where to write down where it is.
    """
    named = read_object(folder / ADAPTERS).get("base_model_name_or_path")
    run = run_of(folder)
    wanted = [str(named)] if named else []
    if run is not None:
        wanted += [path for path in [read_object(run / "config.json").get("model", {}).get("path")] if path]
    if not wanted:
        raise ConfigError(f"{folder / ADAPTERS} names no base_model_name_or_path, so the adapters have no base")
    for name in wanted:
        if name in EMBEDDED:
            return str(EMBEDDED[name])
        path = user_path(name)
        places = [path] if path.is_absolute() else [path, *(above / path for above in folder.parents)]
        there = next((place for place in places if _is_dir(place)), None)
        if there is not None:
            return str(_model_in(resolved(there), name))
        for base in EMBEDDED.values():
            if path.parts[-2:] == base.parts[-2:]:  # of an installation that is elsewhere
                return str(base)
    try:
        return find_model(wanted[0])
    except ConfigError as error:
        raise ConfigError(f"the base of the adapters in {folder} is gone: {error}; say where it is now with "
                          f"base_model_name_or_path in {folder / ADAPTERS}") from None  # fmt: skip


def nearest(path: Path) -> Path | None:
    """The existing path that a mistyped one most likely means, component by component, or ``None``."""
    found = Path(path.anchor) if path.is_absolute() else Path()
    for part in path.parts[1:] if path.is_absolute() else path.parts:
        if part == ".." or part in _names_in(found):
            found = found / part
            continue
        close = difflib.get_close_matches(part, _names_in(found), n=1, cutoff=0.6)
        if not close:
            return None
        found = found / close[0]
    return found if found != path else None


def cached_copy(name: str) -> Path | None:
    """The directory of a hub model in the cache on this disk, or ``None``."""
    if not HUB_ID.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


@lru_cache(maxsize=32)
def _hub_refusal(name: str) -> str | None:
    """Why the hub does not give a model: it has none of that name, or can't be asked. ``None`` if it has it."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return "the hub is not asked (HF_HUB_OFFLINE is set)"
    token = get_token()
    request = Request(  # noqa: S310 - the address is the hub's
        f"{constants.ENDPOINT}/api/models/{name}", method="HEAD",
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )  # fmt: skip
    try:
        with urlopen(request, timeout=HUB_SECONDS):  # noqa: S310 - see above
            return None
    except HTTPError as error:
        error.close()
        if error.code in {401, 404}:  # the hub does not tell strangers whether a private model exists
            return "the hub shows none of that name (log in with `hf auth login` if it is private)"
        return None if error.code == 403 else f"the hub answers {error.code}"  # 403: it is there, behind a gate
    except (OSError, HTTPException) as error:  # URLError and TimeoutError among them
        return f"the hub can't be reached ({' '.join(str(error).split())[:80] or type(error).__name__})"


def _model_in(folder: Path, named: str) -> Path:
    """The model that a directory stands for; ``named`` is what it was called by whoever asked."""
    if is_run(folder) or is_checkpoint(folder):
        return trained_weights(folder)
    if (folder / "config.json").is_file() or has_adapters(folder):
        return folder
    inside = sorted({file.parent for name in ("config.json", ADAPTERS) for file in folder.glob(f"*/{name}")}
                    | {file.parent for file in folder.glob("*/*/config.json")})  # fmt: skip
    raise ConfigError(f"cannot load the model {named!r}: {folder} has no config.json"
                      f"{_meant(inside[0] if inside else None)}")  # fmt: skip


def _meant(path: Path | str | None) -> str:
    return "" if path is None else f"; did you mean {path}?"


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long to be a path, or with a NUL in it
        return False


def _names_in(folder: Path) -> list[str]:
    try:
        return [child.name for child in folder.iterdir()]
    except OSError:
        return []
