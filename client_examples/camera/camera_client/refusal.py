"""Why there is no answer, in one sentence for the log and for a verdict's reason."""

from __future__ import annotations

import os

import grpc
from edge_agent_client import EdgeAgentClient

LONGEST = 1000
"""Characters: it goes into messages, which have a limit."""


def sentence(error: grpc.RpcError, agent: EdgeAgentClient) -> str:
    """The status code, and what the agent says, whose refusals are sentences; of gRPC's own, what they mean here."""
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        said = _why_away(agent)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        said = "the agent did not answer in time; its log tells what it is doing"
    else:
        said = error.details() or ""
    return f"{code.name}: {said}"[:LONGEST]


def _why_away(agent: EdgeAgentClient) -> str:
    if not os.access(agent.socket_path, os.F_OK):
        return f"no agent is at {agent.socket}; start it, or name another `socket`"
    if not os.access(agent.socket_path, os.R_OK | os.W_OK):
        return f"this user may not use {agent.socket}; join the group that owns it (ls -l shows it)"
    return f"the agent at {agent.socket} does not answer; if it is not just restarting, see its log"
