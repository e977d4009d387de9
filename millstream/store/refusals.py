"""What errors of redis-py mean for us, and which of them pass by themselves.

It knows the words of Redis, Valkey and redis-py, which differ between releases.
"""

from __future__ import annotations

import redis.exceptions as refused

from millstream.errors import StoreError, StoreFull, StoreUnavailable, UnfitStore
from millstream.store.addresses import Address

_PASSING = (
    refused.ReadOnlyError,
    refused.ClusterDownError,
    refused.AskError,
    refused.TryAgainError,
    refused.MasterDownError,
)
#: What a refusal begins with that passes, where redis-py has no class for it.
_PASSING_WORDS = (
    "READONLY", "LOADING", "UNBLOCKED", "MASTERDOWN", "CLUSTERDOWN", "MOVED", "NOREPLICAS",
)  # fmt: skip


def translated(error: Exception, address: Address, *, met: bool) -> Exception:
    """Return our error for one of redis-py's. ``met``: the address has answered before."""
    error = _cause(error)
    text = str(error).strip() or type(error).__name__
    if text.startswith("No master found for"):
        # What follows there is how each sentinel was asked, and that is long.
        text = f"no sentinel that answers knows a master {address.name!r}"
    if isinstance(error, refused.AuthenticationError | refused.NoPermissionError) or (
        # Inside a script a missing right is an ordinary error; each version words it anew.
        "ACL failure in script" in text or "user executing the script can't" in text
    ):
        return UnfitStore(str(address), text, "check the user, its password and its ACL")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]
        return UnfitStore(
            str(address),
            f"its certificate is not trusted ({reason})",
            "name the authority's file: rediss://...?ssl_ca_certs=FILE",
        )
    if isinstance(error, refused.OutOfMemoryError):
        return StoreFull()
    if isinstance(error, refused.ResponseError) and not passing(error):
        return StoreError(f"Redis at {address} refused: {text}")

    return StoreUnavailable(str(address), text + ("" if met else _doubt(address, text)))


def passing(error: Exception) -> bool:
    """Whether the refusal belongs to a failover or a start, and passes by itself."""
    text = str(error).strip()
    return (
        isinstance(error, _PASSING)
        or text.startswith(_PASSING_WORDS)
        or "read only replica" in text
        # With a class of its own where it is not that of a cluster.
        or "max number of clients" in text
    )


def _cause(error: Exception) -> Exception:
    """Return what redis-py wraps into an error about the cluster, where that one never passes."""
    cause: BaseException | None = error
    while isinstance(cause, refused.RedisClusterException):
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    final = isinstance(cause, refused.AuthenticationError) or (
        isinstance(cause, refused.ResponseError) and not passing(cause)
    )
    return cause if final and isinstance(cause, Exception) else error


def _doubt(address: Address, text: str) -> str:
    """Return what may be wrong with an address that nobody has answered from yet."""
    tls = ("WRONG_VERSION_NUMBER", "record layer", "Timeout connecting")
    if address.tls and any(part in text for part in tls):
        return " (it may speak no TLS: redis:// instead of rediss://)"
    if not address.tls and ("reset by peer" in text or "closed by server" in text):
        return " (it may speak TLS only: rediss:// instead of redis://)"
    return ""
