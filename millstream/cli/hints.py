"""A command that the user is told to call next, so that it works when it is pasted.

It repeats what only this command was told: an address or a queue that the environment or the file
has is found again without being said. A password is never repeated.
"""

from __future__ import annotations

import re
import shlex

from millstream.cli.flags import ClientConfig, Given
from millstream.errors import ConfigError


def again(config: ClientConfig, *words: str, queue: str | None = None) -> str:
    """Return a command line at the same Redis, and at the same queue where that matters."""
    known = _without_flags()
    said = ["millstream", *words]
    if known is None or config.redis != known.redis:
        said += ["--redis", shlex.quote(without_password(config.redis))]
    if queue is not None and (known is None or (queue,) != known.queue):
        said += ["-q", shlex.quote(queue)]
    return " ".join(said)


def without_password(url: str) -> str:
    """Return an address that may be shown."""
    return re.sub(r"(://[^:/@]*:)[^/]*@", r"\1PASSWORD@", url)


def _without_flags() -> ClientConfig | None:
    try:
        return Given({}).resolved(ClientConfig)
    except ConfigError:
        return None
