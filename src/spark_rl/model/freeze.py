"""Which parts of a model are trained: what ``model.freeze`` keeps as it is, and what ``model.lora`` may adapt.

A name means what it means to peft's ``target_modules``: a module's whole name as transformers has it
(``model.layers.0``), or the end of one from a dot on (``q_proj``); in ``model.freeze`` ``*`` stands for anything. A
module stands for all that it holds. Tied weights are one weight: who freezes the word embeddings of a model that ties
them freezes its output layer too.

``vision`` and ``projector`` name the two parts that a model of any family has if it sees: the tower that turns pictures
into features, and what carries these over into the width of the language model.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from spark_rl.errors import ConfigError

VISION, PROJECTOR = "vision", "projector"
"""Values of ``model.freeze`` that name a part and not a module; nothing in a model that sees nothing."""
_PROJECTORS = ("merger", "projector", "connector", "aligner", "image_newline")
"""In the names of modules and weights between a tower and a language model."""
NAMED = 4
"""Names that a message tells at most."""


def freeze(causal_lm: Any, names: Sequence[str], *, sees: bool) -> None:
    """Exclude modules of a transformers model from training.

    Args:
        causal_lm: the model, without adapters.
        names: ``model.freeze``.
        sees: whether it sees images.

    Raises:
        ConfigError: nothing has such a name, or nothing is left to train.
    """
    weights = dict(causal_lm.named_parameters(remove_duplicate=False))
    known = [*(name for name, _ in causal_lm.named_modules() if name), *weights]
    trained = any(weight.requires_grad for weight in weights.values())
    for name in names:
        if name in {VISION, PROJECTOR}:
            found = _seeing(causal_lm, name, list(weights)) if sees else []
        else:
            found = [one for one in known if fnmatchcase(one, name) or fnmatchcase(one, f"*.{name}")]
            if not found:
                raise ConfigError(f"model.freeze: {_unknown(name, causal_lm, known)}")
        outer = tuple(f"{one}." for one in found)
        for one in [one for one in weights if one in found or one.startswith(outer)]:
            weights[one].requires_grad_(False)
    if trained and not any(weight.requires_grad for weight in weights.values()):
        raise ConfigError(f"model.freeze={list(names)} freezes every weight of {type(causal_lm).__name__}, so nothing "
                          "would be trained; take a name out of it")  # fmt: skip


def excluded(causal_lm: nn.Module, targets: Sequence[str] | str) -> str | None:
    """What adapters are kept off because it is frozen, as a regular expression for peft; ``None`` if they keep off
    nothing.

    Args:
        causal_lm: the model, frozen modules already so.
        targets: ``model.lora.target_modules``.

    Raises:
        ConfigError: a name means no layer that could be adapted, or only frozen ones.
    """
    modules = {name: module for name, module in causal_lm.named_modules() if name}
    frozen = {name for name, module in modules.items() if _is_frozen(module)}
    leaves = [name for name, module in modules.items() if not list(module.children()) and list(module.parameters())]
    if isinstance(targets, str):
        hit = [name for name in leaves if isinstance(modules[name], nn.Linear)]
    else:
        hit = []
        for target in targets:
            found = [name for name in modules if name == target or name.endswith(f".{target}")]
            _check_target(target, found, causal_lm, leaves, frozen)
            hit += found
    if frozen.isdisjoint(hit):
        return None
    roots = [re.escape(name) for name in modules if name in frozen and name.rpartition(".")[0] not in frozen]
    return rf"({'|'.join(roots)})(\..*)?"


def _check_target(
    target: str, found: Sequence[str], causal_lm: nn.Module, leaves: Sequence[str], frozen: set[str]
) -> None:
    """Raises :class:`ConfigError` unless a target is a layer, or several, of which one is trained."""
    if not found:
        raise ConfigError(f"model.lora.target_modules: {_unknown(target, causal_lm, leaves)}")
    if outer := [name for name in found if name not in leaves]:
        inside = list(dict.fromkeys(
            name.rpartition(".")[2] for name in leaves if name.startswith(tuple(f"{one}." for one in outer))
        ))  # fmt: skip
        raise ConfigError(f"model.lora.target_modules: {target!r} is no layer with weights of its own"
                          + (f"; name those in it: {_listed(inside)}" if inside else ""))  # fmt: skip
    if set(found) <= frozen:
        raise ConfigError(f"model.lora.target_modules: model.freeze keeps {target!r} as it is wherever it is; take it "
                          "out of one of the two")  # fmt: skip


def _is_frozen(module: nn.Module) -> bool:
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def _seeing(causal_lm: Any, part: str, weights: Sequence[str]) -> list[str]:
    """The weights of the vision tower without its projector, or those of the projector.

    Raises:
        ConfigError: they can't be told from the rest of the model.
    """
    tower, text = (
        next((name for name, module in causal_lm.named_modules() if name and module is wanted), None)
        for wanted in (causal_lm.get_encoder("image"), causal_lm.get_decoder())
    )
    projector = [
        name for name in weights
        if any(word in name for word in _PROJECTORS) and not (text and name.startswith(f"{text}."))
    ]  # fmt: skip
    inside = [name for name in weights if tower and name.startswith(f"{tower}.") and name not in projector]
    found = inside if part == VISION else projector
    if not found:
        children = [name for name, _ in causal_lm.base_model.named_children()]
        raise ConfigError(f"model.freeze: which part of {type(causal_lm).__name__} is its {part} part can't be told; "
                          f"name the module instead ({_listed(children)}), or leave {part!r} out")  # fmt: skip
    return found


def _unknown(name: str, model: nn.Module, known: Iterable[str]) -> str:
    """That no module is called so, and which names are near."""
    ends = [end for whole in known for end in (whole.rpartition(".")[2], whole)]
    ends = list(dict.fromkeys(end for end in ends if not end.isdecimal() and not end.endswith(("weight", "bias"))))
    close = difflib.get_close_matches(name, ends, n=2, cutoff=0.6)
    near = f"did you mean {' or '.join(close)}?" if close else f"known: {_listed([e for e in ends if '.' not in e])}"
    return f"{type(model).__name__} has no module {name!r}; {near}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
