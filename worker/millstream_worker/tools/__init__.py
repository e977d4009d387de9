"""Calls of MCP tools: both eras of the protocol, over HTTP and stdio.

Promise: a fault of one call is that call's alone, and every failure says whether the call may
have run. Nothing here knows of runs' journals, of Redis or of workflows. Importing this package
imports neither the MCP SDK nor aiohttp: both come with the first server that is called.
"""
