"""Backends by name. A backend is imported when the first model that needs it is used."""

from __future__ import annotations

import importlib
from typing import Any

from millstream.errors import InferenceRejected, MissingExtra
from millstream_worker.inference.backends import Backend, BackendOptions
from millstream_worker.inference.declared import ModelSpec

#: Name -> where it is, and whether it can use a device.
BACKENDS = {
    "hashing": "millstream_worker.inference.backends.hashing:HashingBackend",
    "transformers": "millstream_worker.inference.backends.transformers:TransformersBackend",
    "torch": "millstream_worker.inference.backends.transformers:TransformersBackend",
}
#: The backend that is no device but a server.
REMOTE = "openai"
#: Those that run on the host alone.
HOST_ONLY = frozenset({"hashing"})
#: Those whose batches are mostly Python between operations, which wants the interpreter for itself.
BUSY = frozenset({"transformers", "torch"})


def make(spec: ModelSpec) -> Backend:
    """Return the backend of a model. Raises `InferenceRejected` that says what is missing."""
    kind = _find(spec)
    if kind.settings is not None:
        unknown = set(spec.options) - set(kind.settings)
        if unknown:
            known = ", ".join(sorted(kind.settings)) or "none"
            raise _wrong(
                spec, f"{min(unknown)!r} is no option of {spec.backend}; there are {known}"
            )
    try:
        return kind(BackendOptions(model=spec.name, path=spec.path, options=spec.options))
    except MissingExtra as error:
        raise InferenceRejected(str(error), cause="MissingExtra") from error


def _find(spec: ModelSpec) -> type[Backend]:
    target = BACKENDS.get(spec.backend, spec.backend)
    module, colon, name = target.partition(":")
    if not colon:
        raise _wrong(
            spec,
            f"there is no backend {spec.backend!r}; use {', '.join([*BACKENDS, REMOTE])},"
            " or module:Class of your own",
        )
    try:
        kind: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _wrong(spec, f"backend {target!r} cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Backend)):
        raise _wrong(spec, f"{target!r} is no subclass of millstream_worker.inference.Backend")
    return kind


def _wrong(spec: ModelSpec, what: str) -> InferenceRejected:
    return InferenceRejected(f"model {spec.name!r}: {what}", cause="ConfigError")
