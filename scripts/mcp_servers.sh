#!/bin/sh
# Installs the public MCP servers that come from npm into .tools/, where the tests look for them.
# Those that come from PyPI are in the `dev` extra. Without npm the tests that need these skip.
set -eu

readonly SCOPE=@modelcontextprotocol VERSION=2026.8.31
stamp=.tools/.mcp-servers-$VERSION

[ ! -e "$stamp" ] || exit 0

if ! command -v npm >/dev/null 2>&1; then
  echo "npm is not installed: tests against the public npm MCP servers are skipped"
  exit 0
fi

mkdir -p .tools
echo "installing the public npm MCP servers into .tools ..."
# `--no-save`: no manifest and no lock file, so no registry's address can end up in the tree.
# The limit: behind a broken network npm retries every package for minutes, and CI has a budget.
limit=
! command -v timeout >/dev/null 2>&1 || limit="timeout 180"
if $limit npm install --prefix .tools --no-save --no-audit --no-fund --loglevel error --fetch-retries 1 \
  "$SCOPE/server-everything@$VERSION" \
  "$SCOPE/server-filesystem@$VERSION" \
  "$SCOPE/server-memory@$VERSION" >/dev/null </dev/null; then
  touch "$stamp"
else
  echo "npm could not install the public MCP servers: tests against them are skipped"
fi
