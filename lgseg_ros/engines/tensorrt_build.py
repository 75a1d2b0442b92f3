"""Build a TensorRT engine from the network file; the same calls for TensorRT 10.3 to 11."""

import tempfile
import time
from typing import NamedTuple

from ..vocabulary.classes import MAX_PHRASES
from .engine_cache import DamagedEngine, engine_folder, load_or_build, read_header
from .preprocessing import SMALLEST, STEP, network_size
from .gpu import EngineError
from .tensorrt_network import find_network, make_network

WIDEST = 2.4            # aspect ratio of the pictures that an engine takes as they are: 1 to this
USUAL_PHRASES = 16         # for which kernels are chosen
MAX_BATCH = 4
WORKSPACE = 1 << 30     # bytes; more is seldom used, and a Jetson shares its memory with everything else


class Shapes(NamedTuple):
    """What an engine is built for; unlike an `Identity`, no reason to build again until others are asked for.

    size: (height, width) of the pictures it is tuned to; max_batch: most pictures at once.
    """

    size: tuple = (480, 640)
    max_batch: int = MAX_BATCH


def built_shapes(identity):
    """The `Shapes` of the engine in the cache, also of a stale one; without one those that are built by default."""
    try:
        shapes = read_header(engine_folder() / identity.file_name)[1]['shapes']
        return Shapes(tuple(shapes['size']), shapes['max_batch'])
    except (OSError, DamagedEngine, KeyError, TypeError):
        return Shapes()


def load_tensorrt_engine(weights, identity, shapes=None, again=False, progress=None):
    """`Stored` engine of `identity`, from the cache or built now, which takes minutes.

    shapes: to build for, default those of `built_shapes`; again: build even if there is one; progress: called with
    (phase, steps done, steps in all), done 0 to begin with and equal to all at the end.
    Raises EngineError with the reason when TensorRT cannot build it.
    """
    shapes = shapes or built_shapes(identity)

    def build():
        folder = engine_folder()
        network = read_network(weights, identity.precision, folder)
        began = time.monotonic()
        engine = build_engine(network, profile_shapes(identity.pixels, shapes, weights),
                              folder / f'timing-{identity.gpu_name}.cache', progress)
        return engine, {'shapes': shapes._asdict(), 'seconds': round(time.monotonic() - began, 1)}
    return load_or_build(identity, build, again=again)


def read_network(weights, precision, folder):
    """Bytes of the network: found, or made and kept in `folder`.  Raises EngineError where it cannot be made."""
    found = find_network(weights, precision, folder)
    if found:
        return found.read_bytes()
    try:
        return make_network(weights, precision, folder).read_bytes()
    except OSError:   # the folder cannot be written, as `load_or_build` tells
        with tempfile.TemporaryDirectory() as passing:
            return make_network(weights, precision, passing).read_bytes()


def profile_shapes(pixels, shapes, weights):
    """{input: (least, usual, largest shape)} for all pictures of `WIDEST` and narrower, and for those of `shapes`."""
    def steps(side):
        return -int(-side // STEP) * STEP
    height, width = network_size(*shapes.size, pixels)
    largest = max(steps(pixels ** 0.5), height), max(steps((WIDEST * pixels) ** 0.5), width)
    dim = len(weights.projection[1])
    rows = tuple((count, dim) for count in (1, USUAL_PHRASES, MAX_PHRASES))
    return {'frames': ((1, SMALLEST, SMALLEST, 3), (1, height, width, 3), (shapes.max_batch, *largest, 3)),
            'rows': rows, 'row_ids': tuple((count,) for count, _ in rows)}


def build_engine(network, profile, timing_path, progress=None):
    """ONNX bytes -> serialized engine for the GPU of this machine.  Raises EngineError."""
    import tensorrt as trt
    logger = make_logger()
    builder = trt.Builder(logger)
    # From TensorRT 11 on networks are always strongly typed, and the flag is accepted and ignored.
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(network):
        reasons = '; '.join(parser.get_error(i).desc() for i in range(min(parser.num_errors, 3)))
        raise EngineError(f'TensorRT {trt.__version__} cannot read the network: {reasons}')
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    shapes = builder.create_optimization_profile()
    for name, (least, usual, largest) in profile.items():
        shapes.set_shape(name, least, usual, largest)
    if config.add_optimization_profile(shapes) < 0:
        raise EngineError(f'TensorRT refuses the shapes {profile}: {logger.reason()}')
    timings = config.create_timing_cache(timing_path.read_bytes() if timing_path.is_file() else b'')
    if timings is None or not config.set_timing_cache(timings, False):   # of another GPU or version: begin anew
        config.set_timing_cache(config.create_timing_cache(b''), False)
    monitor = progress and make_monitor(progress)
    if monitor:
        config.progress_monitor = monitor   # held here too: it must outlive the build
    engine = builder.build_serialized_network(definition, config)
    if engine is None:
        raise EngineError(f'TensorRT {trt.__version__} cannot build the engine: {logger.reason()}')
    _keep_timings(config.get_timing_cache(), timing_path)
    return bytes(engine)


def _keep_timings(timings, path):
    """Measured kernels make the next build of a similar network several times faster; to lose them is no fault."""
    from ..utils.atomic_write import atomic_write
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(bytes(timings.serialize()))
    except OSError:
        pass


def make_logger():
    """A TensorRT logger that keeps the errors, for the message of the exception that follows them."""
    import tensorrt as trt

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, message):
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def reason(self):
            return '; '.join(self.errors[-2:])[:400] or 'it gives no reason'
    return Logger()


def make_monitor(progress):
    """TensorRT's progress monitor around `progress`; an interrupt ends the build."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.steps = {}

        def phase_start(self, phase_name, parent_phase, num_steps):
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name):
            steps = self.steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

        def step_complete(self, phase_name, step):
            try:
                progress(phase_name, step, self.steps.get(phase_name, step))
                return True
            except KeyboardInterrupt:
                return False
    return Monitor()
