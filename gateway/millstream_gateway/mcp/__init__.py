"""The workflows as tools of an MCP server, under ``/mcp``."""
