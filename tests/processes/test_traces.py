"""One trace from the client to the last step, although the worker in between is killed."""

from __future__ import annotations

from pathlib import Path

from millstream import SyncClient
from millstream.telemetry.opening import open_tracing
from tests.processes.conftest import LEASE_S
from tests.processes.fleet import Fleet
from tests.servers import RedisServer
from tests.telemetry.collector import Seen, collecting


def steps(spans: list[Seen]) -> list[Seen]:
    return [span for span in spans if span.name == "step act"]


def test_a_run_whose_worker_is_killed_is_one_whole_trace(
    server: RedisServer, tmp_path: Path
) -> None:
    """What the dead worker did and what its successor did hang under the same enqueue."""
    with collecting() as collector:
        tracing = open_tracing(collector.url, "shop", "1", lambda _: None)
        assert tracing is not None
        with (
            Fleet(tmp_path, server.url, lease=LEASE_S, otlp_endpoint=collector.url) as fleet,
            SyncClient(server.url, tracing=tracing) as client,
        ):
            (first,) = fleet.start()
            run = client.enqueue("chain", {"steps": 16, "pause": 0.2}, id="r1")
            collector.until(lambda spans: len(steps(spans)) >= 2)
            first.kill()
            (second,) = fleet.start()
            assert run.result(timeout=30) == list(range(16))
            second.terminate()
            assert second.exit_code(20) == 0
            tracing.close()

        spans = collector.spans
        (enqueue,) = collector.named("enqueue chain")
        takes = collector.named("take chain")
        (ended,) = collector.named("run chain")
        keys = [span.attributes["millstream.step.key"] for span in steps(spans)]
        ids = {span.id for span in spans}

        assert {span.trace for span in spans} == {enqueue.trace}
        assert (enqueue.parent, enqueue.service) == ("", "shop")
        assert {(x.parent, x.links) for x in takes} == {(enqueue.id, (enqueue.id,))}
        assert len({x.instance for x in takes}) == len(takes) == 2
        # A tree without holes, and no step that was replayed is there again.
        assert all(span.parent in ids for span in spans if span is not enqueue)
        assert len(keys) == len(set(keys)) >= 12
        assert ended.attributes["millstream.state"] == "completed"
        assert {span.instance for span in steps(spans)} == {x.instance for x in takes}
