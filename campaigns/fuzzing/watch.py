"""What a try works with, and what it is watched by: nothing may be read, written, told or started that should not."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fuzzing.hostile import SECRET
from spark_rl.files import resolved

LONGEST = 4000
"""Characters of a refusal."""


class FoundError(Exception):
    """What must not happen has."""


class Watch:
    """Opens and starts of this process, told by Python's own audit events."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = str(scratch)
        self.forbidden = ""
        """A folder that nothing may read from."""
        self.seen: list[str] = []
        self._on = True
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """What the fuzzer itself does."""
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def _keep(self, what: str, path: str) -> None:
        """Keep a file elsewhere as it is: what would change it is seen, and stopped."""
        if not path.startswith((self.scratch, "/dev/", "/proc/", "/tmp/tmp", "/tmp/torch")):  # noqa: S108
            self.seen.append(f"{what} {path}")
            raise PermissionError(errno.EPERM, "the fuzzer keeps it as it is", path)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._keep("wrote", path)
            if self.forbidden and path.startswith(self.forbidden):
                self.seen.append(f"read {path}")
        elif event in {"os.rename", "os.truncate", "os.remove"} and not isinstance(arguments[0], int):
            for name in arguments[: 1 + (event == "os.rename")]:
                named = Path(os.fsdecode(name))
                place = resolved(named) if event == "os.truncate" else resolved(named.parent) / named.name
                self._keep(event, str(place))
        elif event in {"os.system", "os.exec", "os.posix_spawn", "pty.spawn", "webbrowser.open"}:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "subprocess.Popen" and not str(arguments[0]).startswith(sys.executable):
            self.seen.append(f"started {arguments[1]!r:.200}")
        elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1":
            self.seen.append(f"connected to {arguments[1]!r:.200}")


def check_line(error: BaseException) -> None:
    """Raises :class:`FoundError` for a refusal that is no clear line."""
    text = str(error)
    if len(text) > LONGEST:
        raise FoundError(f"a refusal of {len(text):,} characters: {text[:200]!r}")
    check_text(text)
    if "\n" in text or not text.strip():
        raise FoundError(f"a refusal that is not one line: {text[:200]!r}")


def check_text(text: str) -> None:
    """Raises :class:`FoundError` for what a terminal would obey, and for the secret."""
    odd = [c for c in text if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t\r"] or re.findall(
        "[\u202a-\u202e\u2066-\u2069]", text
    )
    if odd:
        raise FoundError(f"{odd[0]!r} in {text[max(0, text.index(odd[0]) - 80) :][:200]!r}")
    if SECRET in text:
        raise FoundError(f"the secret was told: {text[:200]!r}")


@dataclass(slots=True)
class Bench:
    """What a target works with, in its child."""

    scratch: Path
    watch: Watch
    logged: io.StringIO
    made: dict[str, Any] = field(default_factory=dict)
    """What is made once a child."""

    def folder(self) -> Path:
        """A new folder with traps beside good files."""
        place = self.scratch / "try"
        shutil.rmtree(place, ignore_errors=True)
        (place / "folder").mkdir(parents=True)
        (place / "good.png").write_bytes(picture("PNG"))
        os.mkfifo(place / "fifo")
        (place / "loop").symlink_to("loop")
        (place / "link.png").symlink_to("../secret/secret.png")
        (place / "linked").symlink_to("../secret")
        return place


@lru_cache(maxsize=64)
def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (7, 5)) -> bytes:
    """A small valid one."""
    file = io.BytesIO()
    Image.new(mode, size, 1 if mode in {"1", "I", "F"} else None).save(file, kind)
    return file.getvalue()


ENDS = "<|im_end|>"


def tokenizer_of(template: Any = None) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and a few special ones."""
    alphabet = [*pre_tokenizers.ByteLevel.alphabet()]
    words = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.add_special_tokens(["<|im_start|>", ENDS])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=ENDS, chat_template=template)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # fmt: skip


def check_secret(text: str) -> None:
    """Raises :class:`FoundError` if a template has read the environment."""
    if SECRET in text:
        raise FoundError(f"the secret was told: {text[:200]!r}")
