"""Every refusal, in the words of the caller.

A refusal is named by what was refused and writes its own sentence: what was wrong, with which value, and where it
helps what to do. Sentences reach engineers at the line, so they hold no path inside the agent, no traceback and no
internal name. The door gives each refusal its status code (`agent.rpc.error_status`); this module imports nothing.
"""

from __future__ import annotations


class Refusal(Exception):
    """Something the agent will not do, and why, as one sentence in `str(refusal)`."""


# --- packages ---


class BadPackage(Refusal):
    """A model package that cannot be served."""


class BadManifest(BadPackage):
    """The manifest breaks a rule: which field, its value, the rule."""

    def __init__(self, field: str | None, value: object, reason: str) -> None:
        place = "manifest.json" if field is None else f"manifest.json: field '{field}'"
        if value is not None:
            place += f" {'holds' if field is None else 'is'} {_quoted(value)}"
        super().__init__(f"{place}: {_one_line(reason)}.")


class BadPackageFile(BadPackage):
    """A listed file is missing or not what the manifest says."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{_quoted(path)} in the package: {reason}.")


class NoRuntimeForPackage(BadPackage):
    """Nothing on this device runs a model of this package."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No model file of this package can run here: {reason}.")


class DeviceNotUsable(BadPackage):
    """The device, or the runtime for it, that is to run the models cannot be used; `reason` says what to do."""

    def __init__(self, device: str, reason: str) -> None:
        super().__init__(f"{device} cannot be used here: {_one_line(reason)}.")
        self.reason = reason


class NoDeviceRunsModel(BadPackage):
    """Every device that may run the model was tried."""

    def __init__(self, refusals: dict[str, Refusal]) -> None:
        """`refusals`: why not, by name of the device."""
        super().__init__(_of_each_device(refusals))


class ModelDoesNotFit(BadPackage):
    """The graph's inputs or outputs are not those the manifest names."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The model does not fit its manifest: {_one_line(reason)}.")


class ModelNotLoaded(BadPackage):
    """The runtime would not load or warm up the model."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(f"{runtime} could not load the model: {_one_line(reason)}")


class EngineNotTaken(ModelNotLoaded):
    """TensorRT does not load the engine that the package brings for this device."""

    def __init__(self, runtime: str, reason: str) -> None:
        super().__init__(
            runtime,
            "it does not take the package's prebuilt engine; build it on a device like this one, or package the ONNX "
            f"model: {reason}",
        )


class SelfTestFailed(BadPackage):
    """The model's answer to a self-test image is not the one its package expects."""

    def __init__(self, image: str, what: str, expected: object, got: object) -> None:
        super().__init__(
            f"Self-test image {_quoted(image)}: expected {_one_line(what)} {expected}, got {got}. "
            "The model does not answer as it did when it was packaged; package it again, or report this runtime."
        )


class BadArchive(BadPackage):
    """A ZIP that is not unpacked."""

    def __init__(self, entry: str | None, reason: str) -> None:
        place = "The archive" if entry is None else f"The archive at entry {_quoted(entry)}"
        super().__init__(f"{place}: {_one_line(reason)}.")


def _of_each_device(refusals: dict[str, Refusal]) -> str:
    return " ".join(f"[{device}] {refusal}" for device, refusal in refusals.items())


def _quoted(value: object) -> str:
    """A value from outside, on one line and not endless, in quotes."""
    if isinstance(value, str):
        shown = value if len(value) <= 80 else value[:77] + "..."
        return '"' + shown.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    return str(value)[:80]


def _one_line(text: str) -> str:
    """A runtime's message, or one with names from a graph, as one line of at most 300 characters that can be read."""
    line = "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))
    return line if len(line) <= 300 else line[:297] + "..."


# --- images and segments: bad input of one call ---


class BadInput(Refusal):
    """Something in a request that cannot be used; nothing else is touched by it."""


class NoRequest(BadInput):
    def __init__(self) -> None:
        super().__init__(
            "These bytes are no DetectAnomaliesRequest; was the client built from this service's edge-agent.proto?"
        )


class NoImage(BadInput):
    def __init__(self) -> None:
        super().__init__("The request holds no image: set byte_data or shared_memory_handle of 'bitmap'.")


class ImageSizeOutOfRange(BadInput):
    def __init__(self, width: int, height: int, minimum: int, maximum: int) -> None:
        super().__init__(f"The image is {width} x {height}; {minimum} to {maximum} pixels a side can be inspected.")


class WrongByteCount(BadInput):
    def __init__(self, width: int, height: int, got: int, packed: int, padded: int) -> None:
        rows = "" if padded == packed else f", or {padded} with rows padded to a multiple of 4 bytes"
        hint = ""
        if got == width * height * 4:
            hint = " These look like 4 channels: convert to RGB first."
        elif got == width * height:
            hint = " This looks like one channel: convert to RGB first."
        super().__init__(
            f"A {width} x {height} RGB image has {packed} bytes{rows}; the request says or holds {got}.{hint}"
        )


class WrongImageSize(BadInput):
    def __init__(self, component: str, width: int, height: int, expected_width: int, expected_height: int) -> None:
        super().__init__(
            f"The image is {width} x {height}; model {_quoted(component)} was trained on {expected_width} x "
            f"{expected_height} and takes only this size."
        )


class BadSegmentName(BadInput):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The shared-memory name {_quoted(name)} is not accepted: 1 to 254 letters, digits and "
            ". _ + @ : = , ~ -, not starting with a dot, with or without one leading slash."
        )


class SegmentNotUsable(BadInput):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"The shared-memory segment {_quoted(name)} cannot be used: {reason}.")


class SegmentTooSmall(BadInput):
    def __init__(self, name: str, offset: int, size: int, segment: int) -> None:
        super().__init__(
            f"The shared-memory segment {_quoted(name)} has {segment} bytes; offset {offset} and size {size} "
            "reach beyond it."
        )


class SegmentTruncated(BadInput):
    def __init__(self) -> None:
        super().__init__(
            "The shared-memory segment became shorter during the call; keep its size until the answer is there."
        )


class BothMaskHandles(BadInput):
    def __init__(self) -> None:
        super().__init__("anomaly_mask_params sets the shared-memory handle twice (fields 2 and 3); set one of them.")


class MaskRangeTooSmall(BadInput):
    def __init__(self, size: int, needed: int) -> None:
        super().__init__(f"The mask needs {needed} bytes; its shared-memory handle says size {size}.")


class MaskOverlapsImage(BadInput):
    def __init__(self) -> None:
        super().__init__(
            "The mask's byte range overlaps the image's in the same shared-memory segment; keep them apart."
        )


class NoRoomForMask(Refusal):
    """Raised where the memory behind a client's segment is full."""

    def __init__(self, size: int) -> None:
        super().__init__(f"There is no room in shared memory for a mask of {size} bytes; free or enlarge /dev/shm.")


# --- models: what may be asked of them ---


class BadComponentName(BadInput):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"{_quoted(name)} is no name of a model component: 1 to 128 letters, digits, '-', '_' and '.', "
            "not starting with a dot."
        )


class ModelNotFound(Refusal):
    def __init__(self, component: str) -> None:
        super().__init__(
            f"There is no model component {_quoted(component)} on this device; ListModels tells which there are."
        )


class MoveNotAllowed(Refusal):
    """A call that the model's present state does not allow."""


class ModelNotRunning(MoveNotAllowed):
    def __init__(self, component: str, status: str) -> None:
        super().__init__(f"Model {_quoted(component)} is {status}, not RUNNING.")


class ModelAlreadyStarted(MoveNotAllowed):
    def __init__(self, component: str, status: str) -> None:
        super().__init__(f"Model {_quoted(component)} is {status}; only a STOPPED or FAILED model can be started.")


class AgentStops(Refusal):
    """The agent was asked to stop and answers only what it has in hand."""

    def __init__(self) -> None:
        super().__init__("The agent is stopping and takes no more images; try again when it is back.")


class TooManyCalls(Refusal):
    """More calls for all models together than the agent holds."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The agent cannot keep up: {limit} calls are in hand or waiting. Send fewer images a second.")


class TooManyBytes(Refusal):
    """More pixels in messages than the agent holds."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The agent cannot keep up: the images in messages it holds would take more than {limit >> 20} MiB. "
            "Send fewer images a second, or send them through shared memory."
        )


class QueueFull(Refusal):
    def __init__(self, component: str, length: int) -> None:
        super().__init__(
            f"Model {_quoted(component)} cannot keep up: {length} calls are waiting already. "
            "Send fewer images a second."
        )


class CallerGone(Refusal):
    """Nobody waits for this answer any more: the call was cancelled or its deadline has passed."""

    def __init__(self) -> None:
        super().__init__("The caller has gone; the image was not inspected.")


class ModelCrashed(Refusal):
    """The worker ended twice with the same call in hand."""

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(
            f"Model {_quoted(component)} could not inspect this image: {reason}, and the same happened to the next one."
        )


class ImageRefused(Refusal):
    """The same image has ended two workers before."""

    def __init__(self) -> None:
        super().__init__(
            "This very image has ended the model's worker twice; it is not inspected again until the model is "
            "stopped or updated."
        )


class AnswerNotFinite(Refusal):
    def __init__(self, output: str) -> None:
        super().__init__(
            f"The model's output {_quoted(output)} for this image is not a finite number; there is no verdict."
        )


class Unexpected(Refusal):
    """A defect of the agent; the log has the details, the caller gets a fixed sentence."""

    def __init__(self) -> None:
        super().__init__("The agent failed unexpectedly on this call; its log says more.")


class NotEnoughMemory(Refusal):
    def __init__(self, component: str, needed: int, available: int) -> None:
        super().__init__(
            f"Model {_quoted(component)} needs about {needed >> 20} MiB of memory, and {available >> 20} MiB are free. "
            "Stop a model that is not needed."
        )


class NoMemoryToLoad(Refusal):
    """Raised where loading takes more memory than it may (`agent.workers.memory_limit`)."""

    def __init__(self, runtime: str) -> None:
        super().__init__(
            f"{runtime} could not load the model: it needs more memory than is free on this device. "
            "Stop a model that is not needed, or package a smaller one."
        )


class NoDeviceHasRoom(NotEnoughMemory):
    """Every device that may run the model was tried, and for want of memory one of them could not."""

    def __init__(self, refusals: dict[str, Refusal]) -> None:
        """`refusals`: why not, by name of the device."""
        Refusal.__init__(self, _of_each_device(refusals))


class NotEnoughGpuMemory(NotEnoughMemory):
    def __init__(self, needed: int, available: int) -> None:
        Refusal.__init__(
            self,
            f"The model needs about {needed >> 20} MiB of GPU memory, and {available >> 20} MiB may be taken. Stop a "
            "model that is not needed, or raise gpu_memory_limit where one is set.",
        )


class NoGpuMemoryToLoad(NotEnoughMemory):
    """Raised where a model that seemed to have room on the GPU finds none while it is loaded."""

    def __init__(self, runtime: str) -> None:
        Refusal.__init__(
            self,
            f"{runtime} could not load the model: the GPU's memory is full. Stop a model that is not needed, or a "
            "program that uses the GPU.",
        )


class GpuMemoryFull(NotEnoughMemory):
    """Raised where a run finds no room for its intermediate results; the next one may."""

    def __init__(self) -> None:
        Refusal.__init__(
            self, "The GPU's memory is full; send fewer images at once, or stop a model that is not needed."
        )


class GpuFailed(Refusal):
    """An error of the GPU after which its process gets no right answer any more, and has to end."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The GPU failed ({reason}); the process that used it has to end.")
        self.reason = reason


class LoadTimedOut(Refusal):
    """Raised where a model takes longer to load than the setting allows."""

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"The model was not ready within {limit:g} s and loading was ended; "
            "raise load_time_limit if this device needs longer."
        )
