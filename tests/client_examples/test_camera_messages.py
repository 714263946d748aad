"""The camera client's messages: through the Greengrass nucleus (a double of it) and to a real MQTT broker."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent_process import AgentProcess, wait_for
from tests.support.camera_process import CameraProcess, put_picture
from tests.support.nucleus import Nucleus
from tests.support.packages import HEIGHT, WIDTH, make_package

needs_sdk = pytest.mark.skipif(find_spec("awsiot") is None, reason="awsiotsdk is not installed")
needs_broker = pytest.mark.skipif(
    find_spec("paho") is None or shutil.which("mosquitto") is None, reason="paho-mqtt or mosquitto is not installed"
)
RESTARTS = 3
MOST_REPEATED = 100
"""Messages: a broker has at most 20 on the way to a listener."""
BOTH_NUCLEI = pytest.mark.parametrize("lite", [False, True], ids=["java", "lite"])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        running.run_model("parts", make_package(tmp_path_factory.mktemp("packages") / "parts"))
        yield running


def settings_for(agent: AgentProcess, **sinks: Any) -> dict[str, Any]:
    source = {"address": "folder:in", "at_end": "wait"}
    return {"model": "parts", "socket": f"unix://{agent.socket}", "source": source, **sinks}


def ids(payloads: list[bytes]) -> list[str]:
    return [json.loads(payload)["id"] for payload in payloads]


@needs_sdk
@BOTH_NUCLEI
def test_verdicts_wait_while_the_nucleus_is_away_and_come_once_and_in_order(
    agent: AgentProcess, tmp_path: Path, lite: bool
) -> None:
    put_picture(tmp_path / "in", "1.png")
    settings = settings_for(agent, iot_core={"topic": "line/verdicts"}, local_topic={"topic": "gate"})
    with Nucleus(lite=lite) as nucleus, CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
        wait_for("the first verdict on both ways", lambda: len(nucleus.published) == 2)
        nucleus.stop()
        for number in range(2, 8):
            put_picture(tmp_path / "in", f"{number}.png")
        told = camera.wait_for_verdicts(7)
        camera.wait_for_log("iot_core: the nucleus is away.*messages wait")
        nucleus.start()
        wait_for("all of them", lambda: len(nucleus.published) >= 14)
        assert camera.stop() == 0
        for topic in ("line/verdicts", "gate"):
            came = [payload for where, payload in nucleus.published if where == topic]
            assert ids(came) == [verdict["id"] for verdict in told]
    assert camera.sink_counts("iot_core") == {"sent": 7, "waiting": 0, "dropped": 0}


@needs_sdk
def test_verdicts_wait_on_disk_for_the_next_run_and_the_oldest_go_beyond_the_bound(
    agent: AgentProcess, tmp_path: Path
) -> None:
    for number in range(1, 6):
        put_picture(tmp_path / "in", f"{number}.png")
    settings = settings_for(agent, iot_core={"topic": "line", "most_waiting": 3})
    with Nucleus() as nucleus:
        nucleus.stop()
        with CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
            camera.wait_for_log("the nucleus is away")
            told = camera.wait_for_verdicts(5)
            assert camera.stop() == 0
        assert camera.sink_counts("iot_core") == {"sent": 0, "waiting": 3, "dropped": 2}
        nucleus.start()
        shutil.rmtree(tmp_path / "in")
        (tmp_path / "in").mkdir()
        with CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
            wait_for("those that waited", lambda: len(nucleus.published) == 3)
            assert camera.stop() == 0
        assert ids([payload for _, payload in nucleus.published]) == [verdict["id"] for verdict in told[2:]]


@needs_sdk
def test_verdicts_on_disk_outlive_a_client_that_is_killed(agent: AgentProcess, tmp_path: Path) -> None:
    for number in range(1, 4):
        put_picture(tmp_path / "in", f"{number}.png")
    settings = settings_for(agent, iot_core={"topic": "line"})
    with Nucleus() as nucleus:
        nucleus.stop()
        with CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
            told = camera.wait_for_verdicts(3)
            wait_for("them to be on disk", lambda: waiting_on_disk(tmp_path / "waiting/iot_core.sqlite") == 3)
            camera.process.kill()
            camera.process.wait()
            left = camera.segments
        shutil.rmtree(tmp_path / "in")
        (tmp_path / "in").mkdir()
        nucleus.start()
        with CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
            wait_for("those that waited", lambda: len(nucleus.published) == 3)
            assert left and not [path for path in left if path.exists()], "its shared memory is given back, too"
            assert camera.segments, "and nobody else's"
            assert camera.stop() == 0
        assert ids([payload for _, payload in nucleus.published]) == [verdict["id"] for verdict in told]


@needs_sdk
def test_on_a_full_disk_verdicts_wait_in_memory_and_none_is_lost(agent: AgentProcess, tmp_path: Path) -> None:
    """A limit on the size of files makes writes fail as a full disk does, and can be lifted."""
    put_picture(tmp_path / "in", "1.png")
    settings = settings_for(agent, iot_core={"topic": "line"}) | {"in_flight": 1}
    with Nucleus() as nucleus, CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
        wait_for("the first one", lambda: len(nucleus.published) == 1)
        pid = camera.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (3 * WIDTH * HEIGHT * 2, resource.RLIM_INFINITY))
        nucleus.stop()
        for number in range(2, 200):
            put_picture(tmp_path / "in", f"{number}.png")
        camera.wait_for_log(r"outbox: waiting/iot_core.sqlite cannot be written")
        told = camera.wait_for_verdicts(75)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        nucleus.start()
        wait_for("all of them", lambda: len(nucleus.published) == 199)
        assert camera.stop() == 0
    came = ids([payload for _, payload in nucleus.published])
    assert len(set(came)) == 199
    assert came[: len(told)] == [verdict["id"] for verdict in told]
    assert camera.sink_counts("iot_core") == {"sent": 199, "waiting": 0, "dropped": 0}


def waiting_on_disk(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.OperationalError):  # while it is made
        return int(database.execute("SELECT count(*) FROM message").fetchone()[0])
    return 0


@needs_sdk
def test_a_refusal_of_the_nucleus_is_said_and_messages_wait(agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "1.png")
    settings = settings_for(agent, iot_core={"topic": "line"})
    with Nucleus() as nucleus:
        nucleus.refuse("PublishToIoTCore")
        with CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
            camera.wait_for_log("iot_core: the nucleus refuses: UnauthorizedError .*messages wait")
            nucleus.answer_again()
            wait_for("the message", lambda: len(nucleus.published) == 1)
            assert camera.stop() == 0


@needs_sdk
@BOTH_NUCLEI
def test_the_components_configuration_is_the_clients(agent: AgentProcess, tmp_path: Path, lite: bool) -> None:
    """Nucleus lite hands out numbers as text, Java as floating point."""
    put_picture(tmp_path / "in", "1.png", 130)
    configuration = settings_for(agent) | {
        "in_flight": 3,
        "rules": {"uncertain_band": 0.1},
        "picture": {"rotate": 180},
        "json_lines": {"path": "verdicts.jsonl"},
        "accessControl": {"aws.greengrass.ipc.pubsub": {"any": {"operations": ["*"], "resources": ["*"]}}},
    }
    with (
        Nucleus(configuration, lite=lite) as nucleus,
        CameraProcess(tmp_path, None, "--greengrass", environment=nucleus.environment) as camera,
    ):
        [told] = camera.wait_for_verdicts(1)
        assert camera.stop() == 0
    assert told["verdict"] == "uncertain"


@needs_sdk
def test_a_wrong_configuration_is_waited_out_until_a_deployment_puts_it_right(
    agent: AgentProcess, tmp_path: Path
) -> None:
    """A component that exits three times is given up by Greengrass."""
    put_picture(tmp_path / "in", "1.png")
    configuration = settings_for(agent) | {"json_lines": {"path": "verdicts.jsonl"}, "in_flight": 99}
    with (
        Nucleus(configuration) as nucleus,
        CameraProcess(tmp_path, None, "--greengrass", environment=nucleus.environment) as camera,
    ):
        camera.wait_for_log("in_flight: Expected `int` <= 8; tried again every 2 s")
        nucleus.change(in_flight=1)
        camera.wait_for_verdicts(1)
        assert camera.stop() == 0


@needs_sdk
def test_a_message_on_a_local_topic_triggers_also_after_the_nucleus_restarted(
    agent: AgentProcess, tmp_path: Path
) -> None:
    put_picture(tmp_path / "in", "one.png")
    settings = settings_for(agent) | {
        "source": {"address": "folder:in", "at_end": "repeat", "frame_rate": 50, "skip_frames": True},
        "trigger": {"kind": "greengrass", "topic": "part/there"},
    }
    with Nucleus() as nucleus, CameraProcess(tmp_path, settings, environment=nucleus.environment) as camera:
        wait_for("the subscription", lambda: nucleus.calls.count("SubscribeToTopic") == 1)
        nucleus.publish("part/there", b"1")
        camera.wait_for_verdicts(1)
        nucleus.stop()
        nucleus.start()
        wait_for("the subscription", lambda: nucleus.calls.count("SubscribeToTopic") == 2)
        nucleus.publish("part/there", b"2")
        camera.wait_for_verdicts(2)
        assert camera.stop() == 0
    assert camera.counts()["verdicts"] == 2


class MessageBroker:
    """A mosquitto of our own, with what it has to remember on disk."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        folder.mkdir()
        self._configuration = folder / "mosquitto.conf"
        self._log = folder / "log"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"log_type all\nlog_dest file {self._log}\n"
            f"persistence true\npersistence_location {folder}/\nmax_queued_messages 100000\n"
        )

    def __enter__(self) -> MessageBroker:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for("the broker", self._answers)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def count_of_received(self) -> int:
        """Messages that clients have published, each time they came."""
        return self._log.read_text().count("Received PUBLISH from")

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """Who wants all verdicts, at QoS 1, in a session that outlives the broker.

    A broker that was stopped before it had read our acknowledgement delivers once more, and says so (DUP): such a
    repetition belongs to this connection and is none of the publisher's, whose own would come as a new message.
    """

    def __init__(self, port: int, topic: str) -> None:
        import paho.mqtt.client as mqtt

        self.payloads: list[bytes] = []
        self.subscribed = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.client.on_connect = lambda client, *rest: client.subscribe(topic, qos=1)
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        if not (message.dup and message.payload in self.payloads[-MOST_REPEATED:]):
            self.payloads.append(message.payload)

    def _on_subscribe(self, *what: object) -> None:
        self.subscribed += 1

    def __enter__(self) -> Listener:
        wait_for("the subscription", lambda: self.subscribed > 0)
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@needs_broker
def test_a_broker_receives_every_verdict_once_across_its_restarts(agent: AgentProcess, tmp_path: Path) -> None:
    """Verdicts never pause while the broker is stopped and started in the middle of the stream, several times."""
    put_picture(tmp_path / "in", "1.png")
    with MessageBroker(tmp_path / "broker") as broker:
        settings = settings_for(
            agent, mqtt={"topic": "line/verdicts"}, broker={"host": "127.0.0.1", "port": broker.port}
        )
        settings["source"] = {"address": "folder:in", "at_end": "repeat", "frame_rate": 60}
        with Listener(broker.port, "line/verdicts") as listener, CameraProcess(tmp_path, settings) as camera:
            for _ in range(RESTARTS):
                before = len(listener.payloads)
                wait_for("a stream of verdicts", lambda: len(listener.payloads) >= before + 60)  # noqa: B023 (at once)
                broker.stop()
                broker.start()
            before = len(listener.payloads)
            wait_for("what has waited", lambda: len(listener.payloads) >= before + 60)
            assert camera.stop() == 0
            told = camera.verdicts
            wait_for("all of them", lambda: len(listener.payloads) >= len(told))
    assert ids(listener.payloads) == [verdict["id"] for verdict in told]
    assert broker.count_of_received() == len(told), "none was published again under another packet id"
    assert camera.sink_counts("mqtt") == {"sent": len(told), "waiting": 0, "dropped": 0}


@needs_broker
def test_verdicts_wait_while_no_broker_is_there(agent: AgentProcess, tmp_path: Path) -> None:
    with MessageBroker(tmp_path / "broker") as broker:
        settings = settings_for(
            agent, mqtt={"topic": "line/verdicts"}, broker={"host": "127.0.0.1", "port": broker.port}
        )
        with Listener(broker.port, "line/verdicts") as listener, CameraProcess(tmp_path, settings) as camera:
            put_picture(tmp_path / "in", "1.png")
            wait_for("the first one", lambda: len(listener.payloads) == 1)
            broker.stop()
            for number in range(2, 30):
                put_picture(tmp_path / "in", f"{number}.png")
            told = camera.wait_for_verdicts(29)
            broker.start()
            wait_for("all of them", lambda: len(listener.payloads) == 29)
            assert camera.stop() == 0
    assert ids(listener.payloads) == [verdict["id"] for verdict in told]
    assert camera.sink_counts("mqtt") == {"sent": 29, "waiting": 0, "dropped": 0}


@needs_broker
def test_a_message_on_the_broker_triggers(agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "one.png")
    with MessageBroker(tmp_path / "broker") as broker:
        settings = settings_for(agent, broker={"host": "127.0.0.1", "port": broker.port}) | {
            "source": {"address": "folder:in", "at_end": "repeat", "frame_rate": 50, "skip_frames": True},
            "trigger": {"kind": "mqtt", "topic": "part/there"},
        }
        with CameraProcess(tmp_path, settings) as camera, Listener(broker.port, "nothing") as sender:
            # A message is only for those who have subscribed already, so it is sent until it was seen.
            wait_for("a verdict", lambda: sender.client.publish("part/there", b"1") and len(camera.verdicts) > 0)
            assert camera.stop() == 0
