"""What the nucleus does for a component: configuration, state, messages. Knows nothing of sockets."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.nucleus.configuration import (
    ConfigurationStore,
    NoSuchKey,
    as_java_gives_it,
    as_lite_gives_it,
)

COMPONENT = "aws.iot.lookoutvision.EdgeAgent"
Payload = dict[str, Any]


class OperationError(Exception):
    """An error with the name that the service's model gives it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message


@dataclass(frozen=True)
class Subscription:
    """Who is sent events: operation, what of it (a topic; None: anything), and how to send one."""

    operation: str
    topic: str | None
    send: Callable[[str, Payload], None]
    """Takes the shape's name and its content."""


class Operations:
    """All of one component's; called in the server's thread."""

    def __init__(self, configuration: ConfigurationStore, *, lite: bool) -> None:
        self.configuration, self._as_given = configuration, as_lite_gives_it if lite else as_java_gives_it
        self.states: list[str] = []
        """As reported, in order."""
        self.refusals: dict[str, OperationError] = {}
        """Operations that are refused, and how."""
        self.answers: dict[str, Payload] = {}
        """Operations that are answered with this, whatever was asked."""
        self.published: list[tuple[str, bytes]] = []
        """Topics and payloads of what was sent to AWS IoT Core and to local topics, in order."""
        self.calls: list[str] = []
        """Names of operations, in the order they were asked for."""
        self._subscriptions: list[Subscription] = []
        self._handlers: dict[str, Callable[[Payload], Payload]] = {
            "GetConfiguration": self._get_configuration,
            "UpdateConfiguration": self._update_configuration,
            "SubscribeToConfigurationUpdate": lambda request: {},
            "UpdateState": self._update_state,
            "PublishToTopic": self._publish_to_topic,
            "SubscribeToTopic": lambda request: {"topicName": request["topic"]},
            "PublishToIoTCore": self._publish_to_iot_core,
            "SubscribeToIoTCore": lambda request: {},
        }

    def answer(self, operation: str, request: Payload) -> Payload:
        """Raises OperationError."""
        self.calls.append(operation)
        if operation in self.refusals:
            raise self.refusals[operation]
        if operation in self.answers:
            return self.answers[operation]
        if operation not in self._handlers:
            raise OperationError("ServiceError", f"{operation} is not supported")
        return self._handlers[operation](request)

    def subscribe(self, operation: str, request: Payload, send: Callable[[str, Payload], None]) -> Subscription:
        subscription = Subscription(operation, request.get("topic", request.get("topicName")), send)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.remove(subscription)

    def configuration_changed(self, paths: list[list[str]]) -> None:
        for path in paths:
            event = {"configurationUpdateEvent": {"componentName": COMPONENT, "keyPath": path}}
            self._send("SubscribeToConfigurationUpdate", None, "ConfigurationUpdateEvents", event)

    def _get_configuration(self, request: Payload) -> Payload:
        path = request.get("keyPath") or []
        try:
            value = self.configuration.at(path)
        except NoSuchKey:
            raise OperationError("ResourceNotFoundError", f"Key not found: {'/'.join(path)}") from None
        return {"componentName": request.get("componentName", COMPONENT), "value": self._as_given(value)}

    def _update_configuration(self, request: Payload) -> Payload:
        self.configuration_changed(self.configuration.merge(request["valueToMerge"], request.get("keyPath") or []))
        return {}

    def _update_state(self, request: Payload) -> Payload:
        self.states.append(request["state"])
        return {}

    def _publish_to_topic(self, request: Payload) -> Payload:
        (kind, content), context = next(iter(request["publishMessage"].items())), {"topic": request["topic"]}
        if kind == "binaryMessage":
            self.published.append((request["topic"], base64.b64decode(content["message"])))
        event = {kind: {**content, "context": context}}
        self._send("SubscribeToTopic", request["topic"], "SubscriptionResponseMessage", event)
        return {}

    def _publish_to_iot_core(self, request: Payload) -> Payload:
        self.published.append((request["topicName"], base64.b64decode(request.get("payload", ""))))
        event = {"message": {"topicName": request["topicName"], "payload": request.get("payload", "")}}
        self._send("SubscribeToIoTCore", request["topicName"], "IoTCoreMessage", event)
        return {}

    def _send(self, operation: str, topic: str | None, shape: str, event: Payload) -> None:
        for subscription in list(self._subscriptions):
            if subscription.operation == operation and subscription.topic == topic:
                subscription.send(shape, event)
