"""The nucleus of the tests speaks what the SDK's own client speaks, and has the limits that were measured."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.agent_process import wait_for
from tests.support.nucleus import Nucleus
from tests.support.nucleus.framing import BadFrame, Message, MessageFlags, MessageType, decode, encode

PATIENCE = 10.0


@pytest.fixture
def client(nucleus: Nucleus) -> Iterator[Any]:
    from awsiot.greengrasscoreipc import connect
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

    token, socket = nucleus.environment.values()
    client = GreengrassCoreIPCClientV2(connect(ipc_socket=socket, authtoken=token), executor=None)
    yield client
    client.close().exception(PATIENCE)  # some tests have ended the connection already


def test_numbers_are_floats_or_text_by_nucleus(client: Any, nucleus: Nucleus) -> None:
    value = client.get_configuration(key_path=[]).value
    if nucleus.is_lite:
        assert value == {"QueueLength": "3", "Camera": {"Port": "7", "Names": ["left", "2"]}}
    else:
        assert value == {"QueueLength": 3.0, "Camera": {"Port": 7.0, "Names": ["left", 2.0]}}
    assert value == client.get_configuration().value


def test_a_key_path_leads_to_an_object_or_to_one_value(client: Any) -> None:
    assert set(client.get_configuration(key_path=["Camera"]).value) == {"Port", "Names"}
    assert set(client.get_configuration(key_path=["Camera", "Port"]).value) == {"Port"}


@pytest.mark.parametrize("path", [["Missing"], ["Camera", "Missing"], ["QueueLength", "Deeper"]])
def test_a_missing_key_is_a_named_error(client: Any, nucleus: Nucleus, path: list[str]) -> None:
    from awsiot.greengrasscoreipc.model import ResourceNotFoundError

    with pytest.raises(ResourceNotFoundError) as error:
        client.get_configuration(key_path=path)
    # Lite puts the sentence under a key that the SDK does not read.
    assert (error.value.message is None) == nucleus.is_lite


def test_errors_come_by_name_and_what_is_not_offered_is_a_service_error(client: Any, nucleus: Nucleus) -> None:
    from awsiot.greengrasscoreipc.model import ServiceError, UnauthorizedError

    nucleus.refuse("UpdateState")
    with pytest.raises(UnauthorizedError):
        client.update_state(state="RUNNING")
    with pytest.raises(ServiceError):
        client.list_components()
    nucleus.answer_again()
    client.update_state(state="RUNNING")
    assert nucleus.states == ["RUNNING"]


def test_changes_are_told_with_their_key_path(client: Any, nucleus: Nucleus) -> None:
    events: queue.Queue[list[str]] = queue.Queue()
    _, operation = client.subscribe_to_configuration_update(
        on_stream_event=lambda event: events.put(event.configuration_update_event.key_path)
    )
    nucleus.change(QueueLength=4, Camera={"Port": 8})
    assert [events.get(timeout=PATIENCE) for _ in range(2)] == [["QueueLength"], ["Camera", "Port"]]
    client.update_configuration(key_path=["Camera"], value_to_merge={"Gain": 1})
    assert events.get(timeout=PATIENCE) == ["Camera", "Gain"]
    nucleus.reset("QueueLength")
    assert events.get(timeout=PATIENCE) == ["QueueLength"]
    operation.close().result(PATIENCE)
    nucleus.change(QueueLength=9)
    assert set(client.get_configuration(key_path=["QueueLength"]).value) == {"QueueLength"}  # behind all events
    assert events.empty()


def test_messages_go_to_whoever_has_subscribed_to_their_topic(client: Any) -> None:
    from awsiot.greengrasscoreipc import model

    here: queue.Queue[tuple[str, bytes]] = queue.Queue()
    cloud: queue.Queue[tuple[str, bytes]] = queue.Queue()
    client.subscribe_to_topic(
        topic="a",
        on_stream_event=lambda event: here.put((event.binary_message.context.topic, event.binary_message.message)),
    )
    client.subscribe_to_iot_core(
        topic_name="b",
        qos="1",
        on_stream_event=lambda event: cloud.put((event.message.topic_name, event.message.payload)),
    )
    for topic in ("other", "a"):
        message = model.PublishMessage(binary_message=model.BinaryMessage(message=b"\0image"))
        client.publish_to_topic(topic=topic, publish_message=message)
    for topic in ("other", "b"):
        client.publish_to_iot_core(topic_name=topic, qos="1", payload=b"\xffverdict")
    assert here.get(timeout=PATIENCE) == ("a", b"\0image")
    assert cloud.get(timeout=PATIENCE) == ("b", b"\xffverdict")
    assert here.empty() and cloud.empty()


def test_lite_ends_the_connection_at_a_long_message(client: Any, nucleus: Nucleus) -> None:
    client.publish_to_iot_core(topic_name="a", qos="1", payload=bytes(5000))
    publishing = client.publish_to_iot_core_async(topic_name="a", qos="1", payload=bytes(9000))
    assert (publishing.exception(PATIENCE) is not None) == nucleus.is_lite
    if nucleus.is_lite:
        wait_for("the connection to end", lambda: nucleus.clients == 0)


def test_lite_has_no_room_for_a_long_answer(client: Any, nucleus: Nucleus) -> None:
    from awsiot.greengrasscoreipc.model import ServiceError

    nucleus.change(Long="x" * 12_000)
    if nucleus.is_lite:
        with pytest.raises(ServiceError):
            client.get_configuration()
    else:
        assert len(client.get_configuration().value["Long"]) == 12_000
    assert client.get_configuration(key_path=["QueueLength"]).value


def test_a_wrong_token_is_not_let_in(nucleus: Nucleus) -> None:
    from awscrt.exceptions import AwsCrtError
    from awsiot.eventstreamrpc import AccessDeniedError
    from awsiot.greengrasscoreipc import connect

    with pytest.raises(AwsCrtError if nucleus.is_lite else AccessDeniedError):
        connect(ipc_socket=str(nucleus.socket), authtoken="guessed")
    assert nucleus.clients == 0


def test_a_ping_is_answered_with_its_payload_but_by_lite(nucleus: Nucleus) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(PATIENCE)
        plain.connect(str(nucleus.socket))
        plain.sendall(encode(Message(MessageType.PING, payload=b"well?")))
        answer = plain.recv(1 << 16)
        if nucleus.is_lite:
            assert answer == b"", "it ends the connection"
        else:
            assert decode(answer) == Message(MessageType.PING_RESPONSE, payload=b"well?")


def test_a_client_that_is_pinged_goes_on(client: Any, nucleus: Nucleus) -> None:
    nucleus.ping()
    client.update_state(state="RUNNING")
    assert nucleus.states == ["RUNNING"]


# --- framing


EVERY_KIND: dict[str, Any] = {"yes": True, "no": False, "number": -7, "bytes": b"\0\xff", "text": "\u00e9"}


def test_a_message_is_read_as_it_was_written() -> None:
    message = Message(MessageType.APPLICATION_MESSAGE, 5, MessageFlags.TERMINATE_STREAM, EVERY_KIND, b"content")
    assert decode(encode(message)) == message


def test_the_lengths_count_what_is_before_the_headers_and_behind_the_payload() -> None:
    frame = encode(Message(MessageType.PING))
    assert int.from_bytes(frame[:4], "big") == len(frame) == 12 + int.from_bytes(frame[4:8], "big") + 4


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_a_flipped_bit_is_found(at: int) -> None:
    frame = bytearray(encode(Message(MessageType.PING, payload=b"content" * 3)))
    frame[at] ^= 1
    with pytest.raises(BadFrame):
        decode(bytes(frame))
