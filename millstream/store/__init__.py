"""Redis, and nothing but Redis: the only room that talks to it.

One script is one atomic promise; its header says which. Everything above sees values of
`millstream.model` and errors of `millstream.errors`.
"""
