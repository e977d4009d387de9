"""Other agents, which workflows call by A2A 1.0. The wire is JSON over HTTP; no SDK is needed."""
