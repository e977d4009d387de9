"""The workflows as skills of an agent that other agents call: A2A 1.0, over HTTP and gRPC."""
