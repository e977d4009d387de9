"""Find the workflows of an application: ``module:attribute``, or ``path/to/file.py:attribute``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from millstream.errors import LoadError
from millstream.timetable import Timetable
from millstream.workflow import Workflows


def load(target: str, directory: Path) -> Workflows:
    """Import a target and return its workflows.

    ``directory`` is where the user stands: it comes first on the path, as it does for scripts.
    Raises `LoadError` with a reason that tells what to do, or what is wrong with a schedule.
    """
    name, _, attribute = target.partition(":")
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))

    module = _file(target, directory / name) if name.endswith(".py") else _module(target, name)
    found = getattr(module, attribute, None) if attribute else _only_one(target, module)
    if found is None:
        raise LoadError(target, f"{name} has no attribute {attribute!r}")
    if not isinstance(found, Workflows):
        raise LoadError(target, f"{attribute!r} is a {type(found).__name__}, not Workflows")
    if not len(found):
        raise LoadError(target, "it has no workflows; register one with @app.workflow()")
    for schedule in found.schedules:
        Timetable(schedule)

    return found


def _only_one(target: str, module: ModuleType) -> Workflows:
    found = {name: x for name, x in vars(module).items() if isinstance(x, Workflows)}
    if len({id(x) for x in found.values()}) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise LoadError(target, f"say which of its Workflows is meant, as module:name ({names})")

    return next(iter(found.values()))


def _module(target: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0] or error.name == name:
            raise LoadError(
                target, f"no module {error.name!r} here; run in the directory that has it"
            ) from error
        raise _broken(target, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(target, error) from error


def _file(target: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise LoadError(target, f"there is no file {path}")

    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _broken(target, error) from error

    return module


def _broken(target: str, error: BaseException) -> LoadError:
    if isinstance(error, SystemExit):
        return LoadError(
            target, 'importing it ends the process; guard that with: if __name__ == "__main__"'
        )

    return LoadError(target, f"importing it raised {type(error).__name__}: {error}")
