"""A first workflow.

millstream dev examples/hello.py:app --enqueue hello --arg name=world --once
"""

from millstream import Context, Workflows

app = Workflows()


async def greet(name: str) -> str:
    """Stand for whatever should not happen twice."""
    return f"hello, {name}"


@app.workflow()
async def hello(ctx: Context, name: str) -> str:
    """Wait, then greet. Kill the worker meanwhile: another one goes on."""
    await ctx.sleep(3)
    return await ctx.step(greet, name)
