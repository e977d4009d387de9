"""Checks of the manifests: what renders, what the API servers accept, and what only we can know.

Everything runs without a cluster. A rule looks at one rendered place and names what is wrong in it;
it knows the code (settings, commands, metrics) and never the overlay that it looks at.
"""
