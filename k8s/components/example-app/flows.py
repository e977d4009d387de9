"""A first application: three steps with a pause that no worker is held for."""

from millstream import Context, Workflows

app = Workflows()


async def measure(place: str) -> int:
    """Stand in for something that takes a while and should not be done twice."""
    return len(place)


@app.workflow(name="tides", version="1", timeout=600)
async def tides(ctx: Context, place: str, days: int = 3) -> dict[str, list[int]]:
    """Measure for some days; a worker that is deleted meanwhile loses nothing."""
    levels = []
    for day in range(days):
        levels.append(await ctx.step(measure, place, key=f"day-{day}"))
        await ctx.sleep(1)
    return {place: levels}
