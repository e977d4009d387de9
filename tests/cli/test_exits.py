"""Exit codes are a contract with scripts: every error has one, and the help prints them all."""

from __future__ import annotations

import inspect

from millstream import errors
from millstream.cli import exits
from millstream.cli.exits import MEANINGS, Exit


def test_every_code_has_a_meaning_that_the_help_prints() -> None:
    """A code that nobody can look up is no use to a script."""
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"{code:>3}  {meaning}" in exits.describe()


def test_no_error_of_the_library_is_taken_for_a_bug() -> None:
    """A new class of errors must be sorted into the table, not fall through it."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.MillstreamError) and kind is not errors.MillstreamError
    ]

    # Made without their facts: only the class decides.
    codes = {kind: exits.code_of(kind.__new__(kind)) for kind in kinds}

    assert [kind.__name__ for kind, code in codes.items() if code is Exit.BUG] == []
    assert codes[errors.IdConflict] is Exit.CONFLICT
    assert codes[errors.UnknownRun] is Exit.NOT_FOUND
    assert codes[errors.UnfitStore] is Exit.REDIS
    assert codes[errors.StoreUnavailable] is Exit.REDIS
    assert codes[errors.ResultTimeout] is Exit.TIMEOUT
    assert codes[errors.RunFailed] is Exit.RUN_ENDED_BADLY
    assert codes[errors.MissingExtra] is Exit.USAGE
