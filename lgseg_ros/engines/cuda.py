"""The little of CUDA's runtime that the TensorRT engine needs, through NVIDIA's cuda-python.

TensorRT runs on addresses and streams and brings no memory of its own.  cuda-python is some 10 MB and goes with the
TensorRT of JetPack as with that of PyPI; PyTorch would do too, and is not to be had for every Jetson.
"""

import ctypes

import numpy as np

from .gpu import EngineError


def load_runtime():
    """NVIDIA's bindings of the CUDA runtime.  Raises EngineError when they are not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            from cuda import cudart as runtime   # cuda-python before 12.8
        except ImportError as error:
            raise EngineError(f'cuda-python is not installed ({error}); pip install cuda-python of the version of '
                              'your CUDA (Jetson with JetPack 6: "cuda-python<13")') from error
    return runtime


class Cuda:
    """Calls of the CUDA runtime that raise EngineError, with CUDA's own words, where C returns a code."""

    def __init__(self):
        self._runtime = load_runtime()

    def __getattr__(self, name):
        function = getattr(self._runtime, f'cuda{name}')

        def call(*arguments):
            error, *results = function(*arguments)
            if int(error):
                raise EngineError(f'cuda{name}: {self._runtime.cudaGetErrorString(error)[1].decode()}')
            return results[0] if len(results) == 1 else results or None
        return call

    def device(self):
        """(name, compute capability) of the GPU in use, e.g. ('NVIDIA H100', '9.0')."""
        properties = self.GetDeviceProperties(0)
        return properties.name.split(b'\0')[0].decode(), f'{properties.major}.{properties.minor}'

    def multiprocessors(self) -> int:
        """How many streaming multiprocessors the GPU in use has, or its slice."""
        return int(self.GetDeviceProperties(0).multiProcessorCount)

    def new_stream(self):
        """A stream that does not wait for the default one."""
        return self.StreamCreateWithFlags(self._runtime.cudaStreamNonBlocking)

    def capture(self, stream, send):
        """Record what `send()` sends to `stream` instead of doing it.  Returns the graph, ready to be launched."""
        self.StreamBeginCapture(stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            send()
        except EngineError:
            self._runtime.cudaStreamEndCapture(stream)   # else the stream would go on recording
            raise
        graph = self.StreamEndCapture(stream)
        try:
            return self.GraphInstantiate(graph, 0)
        finally:
            self.GraphDestroy(graph)

    def copy(self, target, source, size, kind, stream):
        """Send a copy of `size` bytes to `stream`; kind: HostToDevice or DeviceToHost."""
        self.MemcpyAsync(target, source, size, getattr(self._runtime.cudaMemcpyKind, f'cudaMemcpy{kind}'), stream)


class Buffer:
    """An array on the device and its page-locked twin `host` (NumPy), which is copied without the processor's help."""

    def __init__(self, cuda, shape, dtype):
        self._cuda, self.shape = cuda, tuple(shape)
        self.size = int(np.prod(self.shape)) * np.dtype(dtype).itemsize
        self.device = self._host = None
        try:
            self.device = int(cuda.Malloc(self.size))
            self._host = int(cuda.MallocHost(self.size))
        except EngineError:
            self.close()
            raise
        memory = (ctypes.c_uint8 * self.size).from_address(self._host)
        self.host = np.frombuffer(memory, dtype).reshape(self.shape)

    def upload(self, stream):
        """Send host to device."""
        self._cuda.copy(self.device, self._host, self.size, 'HostToDevice', stream)

    def download(self, stream):
        """Send device to host."""
        self._cuda.copy(self._host, self.device, self.size, 'DeviceToHost', stream)

    def close(self):
        """Give both back; `host` must not be touched afterwards."""
        if self.device is not None:
            self._cuda.Free(self.device)
        if self._host is not None:
            self._cuda.FreeHost(self._host)
        self.device = self._host = self.host = None
