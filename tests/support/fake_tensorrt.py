"""TensorRT without a GPU: its calls, in their order, on what the fake CUDA runtime calls device memory.

An engine is the ONNX model with a head that says what it was built for; a run is ONNX Runtime's, done when the stream
is waited for. What the calls of TensorRT take, give and refuse is as in its Python API of 8.6 to 10; that the names are
those of a real one is tested where TensorRT-RTX is installed.
"""

from __future__ import annotations

import ctypes
import enum
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import InferenceSession

from tests.support.fake_cuda import FakeCuda

MAGIC = b"FAKE ENGINE "


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}
OF_ONNX = {np.dtype(numpy).name: data_type for data_type, numpy in NUMPY.items()}


class FakeTensorRt(types.ModuleType):
    """`sys.modules["tensorrt"]`, and what tests ask and tell it."""

    def __init__(
        self, cuda: FakeCuda, version: str = "10.3.0", *, strongly_typed: bool = False, tells_progress: bool = True
    ) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.cuda = cuda
        self.builds: list[dict[str, Any]] = []
        """What engines were built, and how."""
        self.loads = 0
        """Engines that were deserialized."""
        self.fp16_error = 0.0
        """How far off every output of a floating type is in fp16."""
        self.tf32_error = 0.0
        """The same in TF32."""
        self.build_fails = ""
        """Why nothing can be built."""
        self.gpu_trouble = ""
        """What CUDA says in place of loading any engine."""
        self.gate = ""
        """A FIFO; halfway, a build waits until somebody opens it for writing."""
        self.refuses_runs = False
        self.illegal_accesses: list[str] = []
        """Tensors whose memory was given back before they were read or written."""
        self.phases: list[tuple[Any, ...]] = [
            ("start", "Building", None, 2),
            ("step", "Building", 0),
            ("start", "Timing", "Building", 4),
            *(("step", "Timing", step) for step in range(4)),
            ("finish", "Timing"),
            ("step", "Building", 1),
            ("finish", "Building"),
        ]
        fake = self

        class ILogger:
            Severity = globals()["Severity"]

            def __init__(self) -> None: ...

        class IProgressMonitor:
            def __init__(self) -> None: ...

        self.ILogger = ILogger
        if tells_progress:
            self.IProgressMonitor = IProgressMonitor
        self.DataType = DataType
        self.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
        self.TensorFormat = enum.Enum("TensorFormat", ["LINEAR", "CHW16"])
        self.TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
        self.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
        names = ["STRONGLY_TYPED"] if strongly_typed else ["EXPLICIT_BATCH"]
        self.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", names, start=0)
        self.BuilderFlag = enum.Enum("BuilderFlag", ["TF32"] if strongly_typed else ["TF32", "FP16"])
        self.Builder = lambda logger: Builder(fake, logger)
        self.OnnxParser = lambda network, logger: OnnxParser(network, logger)
        self.Runtime = lambda logger: Runtime(fake, logger)

    @property
    def gpu(self) -> str:
        """Engines run where this is the same."""
        return "8.7"


class Tensor:
    """ITensor."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        self.name = value.name
        self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
        if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise ValueError("Unsupported type")
        self.dtype = (
            DataType.FP8
            if tensor.elem_type == onnx.TensorProto.FLOAT8E4M3FN
            else OF_ONNX[np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name]
        )


class Network:
    """INetworkDefinition."""

    def __init__(self) -> None:
        self.model: onnx.ModelProto | None = None
        self.folder = Path()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self.model.graph.output)

    def get_input(self, index: int) -> Tensor:
        return Tensor(self.model.graph.input[index])

    def get_output(self, index: int) -> Tensor:
        return Tensor(self.model.graph.output[index])

    def unmark_output(self, tensor: Tensor) -> None:
        (output,) = (output for output in self.model.graph.output if output.name == tensor.name)
        self.model.graph.output.remove(output)


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        try:
            self._network.model = onnx.load(path)
            onnx.checker.check_model(self._network.model)
            for output in self._network.model.graph.output:
                Tensor(output)
        except Exception as error:
            self._errors.append(ParserError(f"Failed to parse {path}: {str(error).splitlines()[0]}"))
            self._logger.log(Severity.ERROR, self._errors[-1].desc())
            return False
        return True


class Profile:
    """IOptimizationProfile."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, name: str, minimum: Any, optimum: Any, maximum: Any) -> None:
        assert tuple(minimum) == tuple(optimum) == tuple(maximum), "shapes are fixed"
        self.shapes[name] = tuple(optimum)


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured;"


class Config:
    """IBuilderConfig."""

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.builder_optimization_level = -1
        self.workspace = 0
        self.flags: set[Any] = {"TF32"}
        self.profile: Profile | None = None
        self.timing: TimingCache | None = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert pool.name == "WORKSPACE"
        self.workspace = size

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.remove(flag.name)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timing = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing


class Builder:
    def __init__(self, fake: FakeTensorRt, logger: Any) -> None:
        assert isinstance(logger, fake.ILogger)
        self._fake, self._logger = fake, logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1, "networks have explicit batches, or are strongly typed"
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        fake = self._fake
        if fake.build_fails:
            self._logger.log(Severity.ERROR, fake.build_fails)
            return None
        told = {"start": "phase_start", "step": "step_complete", "finish": "phase_finish"}
        for kind, *arguments in fake.phases if config.progress_monitor else ():
            if getattr(config.progress_monitor, told[kind])(*arguments) is False:
                return None
            if fake.gate and (kind, *arguments) == fake.phases[len(fake.phases) // 2]:
                with open(fake.gate):  # noqa: PTH123 - waits
                    pass
        head = {
            "version": fake.__version__,
            "gpu": fake.gpu,
            "fp16": "FP16" in config.flags,
            "tf32": "TF32" in config.flags,
            "shapes": config.profile.shapes,
        }
        try:
            (shape,) = head["shapes"].items()
            assert Context(Engine(fake, head, network.model)).set_input_shape(*shape)
        except Exception as error:
            self._logger.log(Severity.ERROR, f"IBuilder::buildSerializedNetwork: Error Code 4: {error}")
            return None
        built = {**head, "workspace": config.workspace, "level": config.builder_optimization_level}
        fake.builds.append({**built, "timing": config.timing and config.timing.content})
        return fake_engine(head, network.model)


def fake_engine(head: dict[str, Any], model: onnx.ModelProto) -> bytes:
    content = model.SerializeToString()
    return MAGIC + json.dumps({**head, "size": len(content)}).encode() + b"\n" + content


class Runtime:
    def __init__(self, fake: FakeTensorRt, logger: Any) -> None:
        self._fake, self._logger = fake, logger

    def deserialize_cuda_engine(self, serialized: Any) -> Engine | None:
        if self._fake.gpu_trouble:
            self._logger.log(Severity.ERROR, self._fake.gpu_trouble)
            return None
        head, _, content = bytes(memoryview(serialized)).removeprefix(MAGIC).partition(b"\n")
        try:
            head = json.loads(head)
            for name, here in (("version", self._fake.__version__), ("gpu", self._fake.gpu), ("size", len(content))):
                if head[name] != here:
                    raise ValueError(f"Serialization assertion {name} == {here} failed.")
        except ValueError as error:
            self._logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
            return None
        self._fake.loads += 1
        return Engine(self._fake, head, onnx.load_from_string(content))


class Engine:
    """ICudaEngine."""

    def __init__(self, fake: FakeTensorRt, head: dict[str, Any], model: onnx.ModelProto) -> None:
        self.fake, self.head, self.model = fake, head, model
        self.inputs = {value.name: Tensor(value) for value in model.graph.input}
        self.outputs = {value.name: Tensor(value) for value in model.graph.output}
        self._tensors = {**self.inputs, **self.outputs}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.fake.TensorIOMode.INPUT if name in self.inputs else self.fake.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_format(self, name: str) -> Any:
        return self.fake.TensorFormat.LINEAR

    def get_tensor_location(self, name: str) -> Any:
        return self.fake.TensorLocation.DEVICE

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    """IExecutionContext. Its outputs' shapes follow from the input's, by running the graph once."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._fake = engine, engine.fake
        self._session = InferenceSession(engine.model.SerializeToString())
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name not in self._engine.inputs or tuple(self._engine.head["shapes"].get(name, shape)) != shape:
            return False
        self._shapes = {name: tuple(shape)}
        zeros = np.zeros(shape, NUMPY[self._engine.get_tensor_dtype(name)])
        for output, values in self._outputs({name: zeros}).items():
            self._shapes[output] = values.shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return self._fake.cuda.is_device_memory(address, self._size(name))

    def execute_async_v3(self, stream: int) -> bool:
        if self._fake.refuses_runs or set(self._addresses) != set(self._shapes):
            return False
        return self._fake.cuda.enqueue(stream, self._run) == 0

    def _run(self) -> None:
        for tensor, address in self._addresses.items():
            if not self._fake.cuda.is_device_memory(address, self._size(tensor)):
                self._fake.illegal_accesses.append(tensor)
        if self._fake.illegal_accesses:  # a GPU would end the process's context
            return
        (name,) = self._engine.inputs
        shape, dtype = self._shapes[name], NUMPY[self._engine.get_tensor_dtype(name)]
        content = ctypes.string_at(self._addresses[name], self._size(name))
        for output, values in self._outputs({name: np.frombuffer(content, dtype).reshape(shape)}).items():
            if values.dtype == np.float32:
                head = self._engine.head
                error = self._fake.fp16_error if head["fp16"] else self._fake.tf32_error if head.get("tf32") else 0.0
                values = values + np.float32(error)
            ctypes.memmove(self._addresses[output], values.tobytes(), values.nbytes)

    def _outputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        names = list(self._engine.outputs)
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def _size(self, name: str) -> int:
        return int(np.prod(self._shapes[name])) * np.dtype(NUMPY[self._engine.get_tensor_dtype(name)]).itemsize
