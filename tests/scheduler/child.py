"""The main program of a scheduler process that a test started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from millstream_scheduler.__main__ import run
from millstream_scheduler.config import SchedulerConfig
from tests.processes.child import die_with_parent

_PATHS = ("tls_cert", "tls_key", "service_account")


def main() -> None:
    """Run with the settings that stand in the first argument."""
    settings = json.loads(sys.argv[1])
    die_with_parent(settings.pop("parent"))
    paths = {name: Path(settings[name]) for name in _PATHS if name in settings}
    run(SchedulerConfig(**{**settings, **paths}))


if __name__ == "__main__":
    main()
