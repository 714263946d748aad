"""Every refusal, in the words of the caller.

A refusal is named by what was refused and writes its own sentence: what was wrong, with which value, and where it helps what
to do. Sentences reach engineers at the line, so they hold no path inside the agent, no traceback and no internal name. The
door gives each refusal its status code (`agent.rpc.error_status`); this module imports nothing.
"""

from __future__ import annotations


class Refusal(Exception):
    """Something the agent will not do, and why, as one sentence in `str(refusal)`."""
