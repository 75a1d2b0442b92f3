"""The part of the CUDA runtime that the TensorRT engine needs, through NVIDIA's cuda-python.

TensorRT runs on addresses and streams and allocates no input or output memory. cuda-python is some 10 MB and works with
the TensorRT of JetPack and of PyPI. PyTorch would do too, but it is not available for every Jetson.
"""

import ctypes
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import EngineError


def load_runtime() -> ModuleType:
    """Import NVIDIA's bindings of the CUDA runtime.

    Raises:
        EngineError: cuda-python is not installed.
    """
    module: ModuleType
    try:
        from cuda.bindings import runtime
        module = runtime
    except ImportError:
        try:
            from cuda import cudart  # before cuda-python 12.8
            module = cudart
        except ImportError as error:
            raise EngineError(f'cuda-python is not installed ({error}); pip install cuda-python of the version of '
                              'your CUDA (Jetson with JetPack 6: "cuda-python<13")') from error
    return module


class Cuda:
    """The CUDA runtime, with exceptions in place of return codes.

    An attribute `Name` is the function `cudaName` of the runtime. Where C returns an error code, the function raises
    EngineError with CUDA's own description. Streams and graphs are handles of cuda-python.
    """

    def __init__(self) -> None:
        """Load the runtime.

        Raises:
            EngineError: cuda-python is not installed.
        """
        self._runtime = load_runtime()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._runtime, f'cuda{name}')

        def call(*arguments: object) -> Any:
            error, *results = function(*arguments)
            if int(error):
                raise EngineError(f'cuda{name}: {self._runtime.cudaGetErrorString(error)[1].decode()}')
            return results[0] if len(results) == 1 else results or None
        return call

    def device(self) -> tuple[str, str]:
        """Return name and compute capability of the GPU in use, e.g. ('NVIDIA H100', '9.0')."""
        properties = self.GetDeviceProperties(0)
        return properties.name.split(b'\0')[0].decode(), f'{properties.major}.{properties.minor}'

    def multiprocessors(self) -> int:
        """Return the number of streaming multiprocessors of the GPU in use, or of its slice."""
        return int(self.GetDeviceProperties(0).multiProcessorCount)

    def new_stream(self) -> Any:
        """Create a stream that does not wait for the default stream."""
        return self.StreamCreateWithFlags(self._runtime.cudaStreamNonBlocking)

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Record work as a CUDA graph in place of running it.

        Args:
            stream: the stream that `enqueue` uses.
            enqueue: sends the work to the stream.

        Returns:
            The executable graph for `GraphLaunch`.

        Raises:
            EngineError: the work cannot be captured. The stream can be used again.
        """
        self.StreamBeginCapture(stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        except EngineError:
            self._runtime.cudaStreamEndCapture(stream)   # else the stream would go on recording
            raise
        graph = self.StreamEndCapture(stream)
        try:
            return self.GraphInstantiate(graph, 0)
        finally:
            self.GraphDestroy(graph)

    def copy(self, target: int, source: int, size: int, kind: str, stream: Any) -> None:
        """Enqueue a copy.

        Args:
            target: address to copy to.
            source: address to copy from.
            size: bytes.
            kind: 'HostToDevice' or 'DeviceToHost'.
            stream: the stream that copies.

        Raises:
            EngineError: CUDA refuses the copy.
        """
        self.MemcpyAsync(target, source, size, getattr(self._runtime.cudaMemcpyKind, f'cudaMemcpy{kind}'), stream)


class DeviceBuffer:
    """An array in device memory and a page-locked copy of it in host memory, which the GPU reads without the CPU.

    Attributes:
        shape: of the array.
        size: bytes of the array.
        device: address in device memory.
        host: the array in host memory. It must not be used after `close`.
    """

    host: npt.NDArray[Any]

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Allocate both arrays.

        Args:
            cuda: the CUDA runtime.
            shape: of the array.
            dtype: of the array.

        Raises:
            EngineError: there is not enough memory.
        """
        self._cuda, self.shape = cuda, tuple(shape)
        self.size = int(np.prod(self.shape)) * np.dtype(dtype).itemsize
        self.device = self._host_address = 0
        try:
            self.device = int(cuda.Malloc(self.size))
            self._host_address = int(cuda.MallocHost(self.size))
        except EngineError:
            self.close()
            raise
        memory = (ctypes.c_uint8 * self.size).from_address(self._host_address)
        self.host = np.frombuffer(memoryview(memory), dtype).reshape(self.shape)

    def upload(self, stream: Any) -> None:
        """Enqueue the copy from host to device. Raises EngineError."""
        self._cuda.copy(self.device, self._host_address, self.size, 'HostToDevice', stream)

    def download(self, stream: Any) -> None:
        """Enqueue the copy from device to host. Raises EngineError."""
        self._cuda.copy(self._host_address, self.device, self.size, 'DeviceToHost', stream)

    def close(self) -> None:
        """Free both arrays."""
        if self.device:
            self._cuda.Free(self.device)
        if self._host_address:
            self._cuda.FreeHost(self._host_address)
        self.device = self._host_address = 0
        self.host = np.empty(0, np.uint8)
