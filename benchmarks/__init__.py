"""How fast it is, measured with real processes and a private Redis."""
