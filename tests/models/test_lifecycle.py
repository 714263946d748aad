"""The states and their moves, all 25 pairs, against the contract and not against the table."""

from __future__ import annotations

from itertools import product

import pytest

from agent.models.lifecycle import ALLOWED_MOVES, ModelStatus
from agent.wire import edge_agent_pb2 as wire

# From the contract: StartModel from STOPPED or FAILED, StopModel from RUNNING, a load that ends well or badly, a model
# that keeps crashing, an unloading that ends.
CONTRACT = {
    "STOPPED": {"STARTING"},
    "STARTING": {"RUNNING", "FAILED"},
    "RUNNING": {"STOPPING", "FAILED"},
    "FAILED": {"STARTING"},
    "STOPPING": {"STOPPED"},
}


@pytest.mark.parametrize(("before", "after"), list(product(ModelStatus, ModelStatus)))
def test_a_move_is_allowed_where_the_contract_has_it_and_nowhere_else(before: ModelStatus, after: ModelStatus) -> None:
    assert ((before, after) in ALLOWED_MOVES) == (after.value in CONTRACT[before.value])


def test_the_states_are_those_of_the_wire_contract() -> None:
    assert {status.value for status in ModelStatus} == set(wire.ModelStatus.keys()) == set(CONTRACT)


def test_every_state_can_be_reached_and_left() -> None:
    assert {before for before, _ in ALLOWED_MOVES} == {after for _, after in ALLOWED_MOVES} == set(ModelStatus)
