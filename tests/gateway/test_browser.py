"""The pages in a real Chromium: by keyboard, live, in both colours, and for a screen reader."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream import Schedule
from millstream.store import boards
from tests.cli.test_models import NOTE
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker

playwright = pytest.importorskip("playwright.async_api")
axe = pytest.importorskip("axe_playwright_python.async_playwright")

LOUD = {"error", "warning"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on PATH"),
]


@pytest.fixture
async def gateway(memory_url: str, issuer: Issuer) -> AsyncIterator[Served]:
    """A gateway with a worker, some runs and a dead letter."""
    async with served(memory_url, issuer) as gateway, worker(memory_url):
        await gateway.post("/runs", {"workflow": "fails", "id": "f1"})
        arguments = {"a": 1, "note": "x", "api_key": "y"}
        await gateway.post("/runs", {"workflow": "shows", "arguments": arguments, "id": "s1"})
        for workflow, run in (("waits", "w1"), ("asks", "q1"), ("pays", "t1"), ("parent", "p1")):
            await gateway.post("/runs", {"workflow": workflow, "id": run})
        for run in ("f1", "s1", "p1"):
            await gateway.get(f"/runs/{run}/result?wait=20")
        for run in ("q1", "t1"):
            await gateway.parked(run)
        nightly = Schedule("nightly", "add", {"a": 1}, cron="30 2 * * *")
        await gateway.client.schedules.create(nightly)
        await boards.pin(gateway.connection, boards.MODELS, "w1", msgspec.json.encode(NOTE), 600)
        yield gateway


@pytest.fixture
async def chromium() -> AsyncIterator[Any]:
    """A browser."""
    async with playwright.async_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu"]
        found = await started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        await found.close()


PATHS = (
    "/", "/runs", "/runs/s1", "/runs/w1", "/runs/q1", "/runs/t1", "/runs/p1", "/questions",
    "/schedules", "/schedules/new", "/schedules/nightly/change", "/enqueue", "/dead", "/workers",
    "/models",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_work_in_a_browser(
    gateway: Served, chromium: Any, scheme: str, tmp_path: Path
) -> None:
    """Sign in, look, follow, cancel and replay; nothing violates the policy or hinders a reader."""
    context = await chromium.new_context(color_scheme=scheme, base_url=gateway.url)
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type in LOUD else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    pictures = Path(os.environ.get("MILLSTREAM_TEST_PICTURES", tmp_path))

    await page.goto("/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.get_by_label("API key or token").fill(gateway.token)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Queues").wait_for()
    for path in PATHS:
        await page.goto(path)
    await hinders_nobody(context, gateway.url, scheme, pictures)

    await page.goto("/questions")
    await page.get_by_role("button", name="Give bank/pay#0 of t1 up").click()
    await page.get_by_text("The run is failed.").wait_for()
    await page.goto("/runs/q1")
    await page.get_by_label("Comment").fill("fine")
    await page.get_by_role("button", name="Approve approve:prod of q1").press("Enter")
    await page.get_by_text("The run is completed.").wait_for()
    await page.goto("/runs/p1")
    await page.get_by_role("link", name="kid").click()
    await page.get_by_role("heading", name="Run kid").wait_for()
    await page.get_by_role("link", name="p1").click()
    await page.get_by_role("heading", name="Run p1").wait_for()
    await page.get_by_role("link", name="Schedules").click()
    await page.get_by_role("button", name="Pause nightly").click()
    await page.get_by_role("button", name="Resume nightly").wait_for()
    await page.get_by_role("link", name="New schedule").click()
    await page.get_by_label("Name", exact=True).fill("poll")
    await page.get_by_label("Workflow", exact=True).fill("add")
    await page.get_by_label("Cron line").fill("60 * * * *")
    await page.keyboard.press("Enter")
    await page.get_by_role("alert").get_by_role("link", name="Cron").press("Enter")
    assert await page.evaluate("document.activeElement.id") == "cron"
    await page.keyboard.press("Control+A")
    await page.keyboard.type("0 5 * * *")
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Pause poll").wait_for()
    await page.goto("/runs/w1")
    await page.get_by_role("log").get_by_text("waiting").wait_for()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_text("The run is cancelled.").wait_for()
    await page.get_by_role("link", name="Dead letters").click()
    await page.get_by_role("button", name="Choose all").click()
    await page.get_by_role("button", name="Replay the chosen").click()
    await page.get_by_role("heading", name="Dead letters").wait_for()
    # A form that was refused is answered with 400, which a browser notes.
    assert [each for each in complaints if "400 (Bad Request)" not in each] == []
    await context.close()


async def hinders_nobody(context: Any, base: str, scheme: str, pictures: Path) -> None:
    """Have axe look at every page. It puts a script into it, which our policy would not let run."""
    other = await context.browser.new_context(
        bypass_csp=True, storage_state=await context.storage_state(), color_scheme=scheme
    )
    page = await other.new_page()
    for path in PATHS:
        await page.goto(base + path)
        await page.evaluate("document.querySelectorAll('details').forEach((x) => (x.open = true))")
        name = path.strip("/").replace("/", "-") or "queues"
        await page.screenshot(path=pictures / f"{scheme}-{name}.png", full_page=True)
        found = await axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    await other.close()
