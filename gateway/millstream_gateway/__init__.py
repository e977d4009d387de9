"""The gateway: millstream over HTTP, for programs, for agents and for people."""
