"""The HTTP client under every web server, and what its exceptions mean.

Promise: connections are never a queue (the gates in front are, and they are fair), names are
pinned to checked addresses, nothing follows a redirect or keeps a cookie, and every exception
becomes a `Fault` that says whether the request had begun to leave. It knows no JSON-RPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from millstream.errors import ConfigError
from millstream_worker.tools.egress import resolver
from millstream_worker.tools.faults import AddressRefused, Cut, Unfit, Unsent

CONNECT_S = 5.0

#: Below the five seconds after which common servers close an idle connection: a request sent
#: into a connection that is just being closed is a request whose outcome nobody knows.
_KEEP_ALIVE_S = 4.0


@dataclass(slots=True)
class Ticket:
    """Whether a request has begun to leave this process."""

    sent: bool = False


@asynccontextmanager
async def open_http(*, allow_private: bool) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client whose requests carry a `Ticket` as their trace context."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_mark_sent)
    connector = aiohttp.TCPConnector(
        # Its own limit starves waiters when more tasks contend than it allows.
        limit=0,
        resolver=resolver(allow_private=allow_private),
        keepalive_timeout=_KEEP_ALIVE_S,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        # A bound on what is received must not be undone by a small body that inflates.
        auto_decompress=False,
    ) as http:
        yield http


@contextmanager
def faults(ticket: Ticket) -> Iterator[None]:
    """Turn what aiohttp and the system raise into faults."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody cancelled us: something below lost its own task. The caller must not mistake
        # that for the end of its run.
        raise _lost(ticket, "its connection was dropped") from None
    except AddressRefused:
        raise
    except TimeoutError as error:
        if ticket.sent:
            raise Cut("no answer within its time", timed_out=True) from error
        raise Unsent("no connection within its time") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error.__cause__, AddressRefused):
            raise error.__cause__ from None
        raise _lost(ticket, reason_of(error)) from error
    except ConfigError as error:
        raise Unsent(str(error)) from error
    except ValueError as error:
        raise Unfit(reason_of(error)) from error
    except RuntimeError as error:
        # aiohttp's word for a client that is being closed.
        raise _lost(ticket, reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Return an exception as a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _lost(ticket: Ticket, reason: str) -> Cut | Unsent:
    return Cut(reason) if ticket.sent else Unsent(reason)


async def _mark_sent(
    _http: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    if isinstance(context.trace_request_ctx, Ticket):
        context.trace_request_ctx.sent = True
