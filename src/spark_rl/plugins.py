"""What a user brings as Python files: ``FILE.py:NAME`` for a function or a class, ``FILE.py`` for a whole module.

The file is run as any Python module, with all that it does: it is the user's own code, not data. What is beside the
file can be imported from it, behind everything that is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from spark_rl.errors import ConfigError
from spark_rl.files import resolved, user_path

MOST = 160
"""Characters of an error that are quoted."""

_PACKAGE, _LIBRARY = str(Path(__file__).parent), str(Path(contextlib.__file__).parent)


def is_file_and_name(spec: str) -> bool:
    """Whether a text has the form ``FILE.py:NAME``."""
    file, _, name = spec.rpartition(":")
    return file.endswith(".py") and name.isidentifier()


def check_file(spec: str, setting: str) -> tuple[Path, str]:
    """The file and the name of ``FILE.py:NAME``; the file is not run.

    Args:
        spec: the file and the name in it.
        setting: what messages call the place where it was given, such as ``reward.function``.

    Raises:
        ConfigError: it is not written so, or there is no such file.
    """
    if not is_file_and_name(spec):
        raise ConfigError(f"{setting} {spec!r} must be FILE.py:NAME, a Python file and what it defines")
    file, _, name = spec.rpartition(":")
    path = absolute(file)
    if not path.is_file():
        raise ConfigError(f"{setting} {spec!r}: there is no file {path}")
    return path, name


def load_object(spec: str, setting: str, modules: dict[Path, ModuleType] | None = None) -> Any:
    """The function or class that ``FILE.py:NAME`` means.

    Args:
        spec: the file and the name in it.
        setting: what messages call the place where it was given.
        modules: files that were run before, and those run now, so that each is run once.

    Raises:
        ConfigError: there is no such file or name, or the file can't be run.
    """
    path, name = check_file(spec, setting)
    modules = {} if modules is None else modules
    if path not in modules:
        modules[path] = load_module(path, setting)
    found = getattr(modules[path], name, None)
    if found is None:
        own = [key for key, value in vars(modules[path]).items()
               if getattr(value, "__module__", None) == modules[path].__name__]  # fmt: skip
        raise ConfigError(f"{setting} {spec!r}: {path.name} has no {name!r}; it defines: {', '.join(own) or 'nothing'}")
    return found


def load_module(path: Path, setting: str) -> ModuleType:
    """A Python file as a module of its own.

    Raises:
        ConfigError: it can't be run; the line names the place in it.
    """
    name = f"spark_rl_plugin_{path.stem}_{len(sys.modules)}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None, "the name ends with .py"
    assert found.loader is not None, "a file has a loader"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's own code, which may do anything
        del sys.modules[name]
        raise ConfigError(f"{setting} {str(path)!r}: {path.name} can't be imported: {said(error, path)}") from None
    return module


def said(error: BaseException, path: Path | None = None) -> str:
    """An error in a few words, with the place in the user's own file: ``ValueError: no number (mine.py line 4)``.

    The place is the innermost one outside of installed packages and of this one, or in ``path`` if it is given.
    """
    try:
        text = " ".join(str(error).split())[:MOST]
    except BaseException:  # noqa: BLE001  # an error of the user's own class, which may do anything
        text = ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if (Path(f.filename) == path if path else not _is_installed(f.filename))]
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = f" ({Path(error.filename).name} line {error.lineno})"
        text = error.msg
    else:
        place = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def absolute(file: str) -> Path:
    """The absolute path of a file, ``~`` expanded."""
    return resolved(user_path(file))


def _is_installed(filename: str) -> bool:
    return "site-packages" in filename or filename.startswith(("<", _PACKAGE, _LIBRARY))
