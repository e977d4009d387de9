"""Settings: from flags, then the environment, then ``millstream.toml``, then defaults.

A process describes its settings as one frozen dataclass; here it is filled, once. A setting has
one name everywhere: ``--lease`` is ``MILLSTREAM_LEASE`` is ``lease``. ``MILLSTREAM_LEASE_FILE``
names a file with the value, for what should not stand in an environment that others inherit. Fields
may name other variables of the environment that are read when their own is absent.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from urllib.parse import quote

import msgspec

from millstream.errors import ConfigError

if TYPE_CHECKING:

    class _Dataclass:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound="_Dataclass")

FILE = "millstream.toml"
DEFAULT_REDIS = "redis://localhost:6379/0"
#: Where OpenTelemetry has the address of its collector.
OTLP = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PREFIX = "MILLSTREAM_"
#: Ends the name of a variable that names a file with the value.
_FROM_FILE = "_FILE"
#: How alike two names are when one is a misspelling of the other.
_NEAR = 0.75
#: What Kubernetes puts into every container for each service of the namespace.
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What people are told of a setting, and where else it is looked for."""

    help: str
    fallbacks: tuple[str, ...] = ()
    lowest: float | None = None
    highest: float | None = None


def setting(
    default: Any,
    help: str,
    *fallbacks: str,
    lowest: float | None = None,
    highest: float | None = None,
) -> Any:
    """Declare a field of a configuration."""
    return field(default=default, metadata={"setting": Setting(help, fallbacks, lowest, highest)})


def resolve(
    cls: type[T], flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path
) -> T:
    """Fill a configuration. Raises `ConfigError` that names the setting and where it came from."""
    file = _read_file(directory / FILE)
    values = {}
    for each in fields(cls):
        value, source = _find(each, flags, environ, file)
        if source:
            values[each.name] = _checked(each, _converted(cls, each, value, source), source)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{each.name} is not set; give --{_dashed(each.name)}")

    return cls(**values)


def check_names(known: Collection[str], environ: Mapping[str, str], directory: Path) -> None:
    """Raise `ConfigError` for a setting that nobody has, so that no misspelling is passed over.

    The file is ours alone: there every unknown name is refused. The environment is shared, with
    what Kubernetes adds for a service that is called millstream, and with other programs: there
    only what looks like one of our names is.
    """
    for name in _read_file(directory / FILE):
        if name not in known:
            raise ConfigError(f"{FILE}: {name!r} is no setting; {_nearest(name, known)}")
    for variable, value in environ.items():
        name = variable.removeprefix(_PREFIX).removesuffix(_FROM_FILE).lower()
        if not variable.startswith(_PREFIX) or name in known or _SERVICE_LINK.search(variable):
            continue
        if difflib.get_close_matches(name, known, 1, _NEAR) and "://" not in value[:6]:
            raise ConfigError(f"{variable} is no setting; {_nearest(name, known, _variable)}")


def _nearest(name: str, known: Collection[str], spelt: Callable[[str], str] = str) -> str:
    found = difflib.get_close_matches(name, known, 1, 0.0)
    return f"did you mean {spelt(found[0])}?"


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


def _find(
    each: Field[Any], flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[str, Any]
) -> tuple[Any, str]:
    if flags.get(each.name) is not None and flags[each.name] != ():
        return flags[each.name], f"--{_dashed(each.name)}"

    variable = _variable(each.name)
    if variable in environ:
        return environ[variable], variable
    from_file = variable + _FROM_FILE
    value, source = None, ""
    if from_file in environ:
        value, source = _read_value(Path(environ[from_file]), from_file), from_file
    elif each.name in file:
        value, source = file[each.name], FILE
    elif each.name == "redis" and "REDIS_HOST" in environ:
        value, source = redis_from_parts(environ), "REDIS_HOST"
    else:
        found: Setting | None = each.metadata.get("setting")
        source = next((x for x in (found.fallbacks if found else ()) if x in environ), "")
        value = environ.get(source)

    return value, source


def redis_from_parts(environ: Mapping[str, str]) -> str:
    """Return the address that ``REDIS_HOST``, ``REDIS_PORT`` and ``REDIS_PASSWORD`` describe."""
    password = environ.get("REDIS_PASSWORD", "")
    login = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{login}{environ['REDIS_HOST']}:{environ.get('REDIS_PORT', '6379')}/0"


def _converted(cls: type[Any], each: Field[Any], value: Any, source: str) -> Any:
    hint = typing.get_type_hints(cls)[each.name]
    if isinstance(value, str) and typing.get_origin(hint) is tuple:
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Path):
        return value
    try:
        return msgspec.convert(value, hint, strict=False, dec_hook=_path)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{source}: {_short(value)} is not allowed for {each.name}: {error}"
        ) from None


def _checked(each: Field[Any], value: Any, source: str) -> Any:
    found = cast("Setting | None", each.metadata.get("setting"))
    if found is None or not isinstance(value, int | float):
        return value
    if found.lowest is not None and value < found.lowest:
        raise ConfigError(f"{source}: {each.name} must be at least {found.lowest:g}, not {value:g}")
    if found.highest is not None and value > found.highest:
        raise ConfigError(f"{source}: {each.name} must be at most {found.highest:g}, not {value:g}")

    return value


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _read_value(path: Path, source: str) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot read {path}: {error}") from error


def _path(wanted: type, value: Any) -> Any:
    if wanted is Path:
        return Path(value)

    raise NotImplementedError


def _short(value: Any) -> str:
    text = repr(value)
    return "the value" if "://" in text else text[:60]


def _dashed(name: str) -> str:
    return name.replace("_", "-")
