"""How far generation goes in one go, for those who write texts and those who foresee the memory."""

from __future__ import annotations

#: Tokens of prompts that are read at once, padding included.
READ_AT_ONCE = 2048
#: Tokens of each text that memory is taken for at once.
BLOCK = 64
