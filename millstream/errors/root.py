"""The root of the tree of errors, its largest branches, and what an error says."""

from __future__ import annotations


class MillstreamError(Exception):
    """Base of all errors raised here. Catch it to catch them all."""


class UsageError(MillstreamError):
    """The caller asked for something that can never work."""


class StoreError(MillstreamError):
    """Redis could not do what was asked. Safe to try again."""


def said(error: BaseException) -> str:
    """Return what an error says, whatever it is: some cannot even say that, or not in UTF-8."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error's own text may fail in any way
        text = f"{type(error).__name__} without a message"
    return text.encode("utf-8", "replace").decode()
