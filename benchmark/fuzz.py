"""Feed the node with random and mutated messages and requests, and count the outcomes.

    python benchmark/fuzz.py                 (after: source scripts/activate.sh)
    python benchmark/fuzz.py --cases 1000000 --seed 7

Everything runs in this process, without DDS: images, compressed images (mutated from real JPEG and PNG files),
vocabulary requests through the service handlers of the real node, class texts, and RLE masks. Only the documented
errors (ImageError, VocabularyError, a response without success) may occur. Any other error ends the run with exit
code 1 and the number of the case. To repeat the case, give the same --seed and --only.
"""

import argparse
import gc
import os
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image

from lgseg_ros.node.compressed_images import frame_from_compressed
from lgseg_ros.node.image_conversions import VIEWED_ENCODINGS, ImageError, frame_as_bgr, frame_from_image
from lgseg_ros.node.rle import encode_rle
from lgseg_ros.node.segmentation_node import SegmentationNode
from lgseg_ros.srv import GetVocabulary, SetVocabulary
from lgseg_ros.vocabulary.classes import VocabularyError, parse_class, parse_classes

SHARES = {'images': 0.4, 'compressed': 0.2, 'class texts': 0.2, 'requests': 0.15, 'RLE': 0.05}
NUMBERS = (0, 1, 2, 3, 7, 8, 31, 64, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
ODD_TEXT = ('', '=', '|', '||', '=|', ' ', '\t', '_', '\x07', '\u202e', '\u200d', '🚗', 'שלום', 'İ', 'ß', 'ﬁ', '\0',
            '%s',
            '{}', '../../x', '$(x)', 'NaN', 'x' * 101, 'x' * 30_000, '\ud83d', '\uffff')
NAMES = ('road', 'car', 'sky', 'tree', 'traffic light', 'Person', 'pole', 'grass')
SLOW_S = 20.0     # a case that takes longer hangs, even on a busy machine


class Fuzz:
    """Makes cases from a seed, runs them and checks their outcomes."""

    def __init__(self, seed: int) -> None:
        """Create and configure the node. Raises SystemExit if it cannot be configured."""
        self.seed, self.counts = seed, Counter[tuple[str, str]]()
        self.encoded_images = [(kind, cv2.imencode(kind, make(h, w))[1].tobytes()) for kind in ('.jpg', '.png')
                               for h, w in ((8, 8), (48, 64), (33, 127)) for make in (noise, ramp)]
        self.node = SegmentationNode('fuzz', parameter_overrides=[
            rclpy.parameter.Parameter('num_threads', value=1), rclpy.parameter.Parameter('autostart', value=False)])
        self.node.get_logger().set_level(rclpy.logging.LoggingSeverity.FATAL)
        if self.node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            raise SystemExit(f'the node cannot be configured: {self.node.last_error}')
        self.executor = SingleThreadedExecutor()   # requests may wait for the thread of a text encoder
        self.executor.add_node(self.node)
        self.kinds: dict[str, Callable[[random.Random], str]] = {
            'images': self.image, 'compressed': self.compressed, 'class texts': self.class_text,
            'requests': self.request, 'RLE': self.rle}

    def close(self) -> None:
        """Destroy the node."""
        self.executor.remove_node(self.node)
        self.node.close()

    def run(self, kind: str, case: int) -> None:
        """Run one case and count its outcome. Raises the error that should not have occurred."""
        start = time.monotonic()
        outcome = self.kinds[kind](random.Random(f'{self.seed} {kind} {case}'))
        self.counts[kind, outcome] += 1
        assert time.monotonic() - start < SLOW_S, f'took {time.monotonic() - start:.1f} s'

    # --- kinds of cases: each returns its outcome and asserts what must hold for it

    def image(self, rng: random.Random) -> str:
        """Convert an image message with odd fields."""
        height, width = rng.randint(1, 40), rng.randint(1, 40)
        encoding = rng.choice((*3 * tuple(VIEWED_ENCODINGS), 'mono16', 'bayer_rggb8', 'yuv422', *ODD_TEXT[:4]))
        step = width * VIEWED_ENCODINGS.get(encoding, ('', 3))[1] + rng.choice((0, 0, 0, 1, 13))
        fields = {'height': height, 'width': width, 'encoding': encoding, 'step': step,
                  'data': rng.randbytes(height * step), 'is_bigendian': rng.choice((0, 1, 255))}
        for name in rng.sample(('height', 'width', 'step', 'data', 'encoding'), rng.choice((0, 0, 1, 1, 2, 5))):
            fields[name] = (rng.randbytes(rng.choice((0, 1, 100, 5000))) if name == 'data' else
                            rng.choice(ODD_TEXT).encode('utf-8', 'replace').decode() if name == 'encoding' else
                            rng.choice((*NUMBERS, rng.randrange(2**32))))
        try:
            frame = frame_from_image(Image(**fields))
        except ImageError as error:
            assert 10 < len(str(error)) < 800, str(error)
            return 'rejected'
        assert frame.pixels.shape[:2] == (fields['height'], fields['width']) and frame.pixels.dtype == np.uint8
        assert frame_as_bgr(frame).shape == (fields['height'], fields['width'], 3)
        return 'read'

    def compressed(self, rng: random.Random) -> str:
        """Decode a mutated JPEG or PNG."""
        kind, data = rng.choice(self.encoded_images)
        data = mutate(rng, data) if rng.random() < 0.9 else rng.randbytes(rng.choice((0, 1, 30, 3000)))
        try:
            frame = frame_from_compressed(CompressedImage(format=rng.choice((kind, '', 'x' * 500)), data=data))
        except ImageError as error:
            assert 10 < len(str(error)) < 800, str(error)
            return 'rejected'
        assert frame.pixels.ndim == 3 and frame.pixels.dtype == np.uint8 and frame.pixels.size < 3 * 2**26 + 1
        return 'read'

    def class_text(self, rng: random.Random) -> str:
        """Parse class texts."""
        texts = [class_text(rng) for _ in range(rng.choice((0, 1, 1, 2, 5, 300)))]
        try:
            specs = parse_classes(texts)
        except VocabularyError as error:
            assert 10 < len(str(error)) < 800, str(error)
            return 'rejected'
        # The text of a class parses to the same class.
        assert [parse_class(str(spec)) for spec in specs] == list(specs), specs
        return 'parsed'

    def request(self, rng: random.Random) -> str:
        """Change the vocabulary of the node."""
        request = SetVocabulary.Request(
            classes=[class_text(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 40)))],
            preset=rng.choice(('', '', '', 'camvid', 'nav2', 'autoware', *ODD_TEXT)),
            confidence_threshold=rng.choice((-1.0, 0.0, 0.5, 1.0, 1.5, float('nan'), float('inf'), -float('inf'))))
        before = self.node.vocabulary.current
        task = self.executor.create_task(self.node.vocabulary._on_set_vocabulary, request, SetVocabulary.Response())
        self.executor.spin_until_future_complete(task, SLOW_S)
        response = task.result()
        now = self.node.vocabulary._on_get_vocabulary(GetVocabulary.Request(), GetVocabulary.Response())
        assert 10 < len(response.message) < 1500, response.message
        assert list(response.names) == list(now.names) and list(response.ids) == list(now.ids)
        assert response.version == now.version
        if not response.success:
            assert self.node.vocabulary.current is before and 'nothing was changed' in response.message
            return 'rejected'
        assert now.version == before.version + 1 and 0 <= now.confidence_threshold <= 1
        assert len(set(response.ids)) == len(response.ids) == len(response.names) and max(response.ids) < 255
        return 'accepted'

    def rle(self, rng: random.Random) -> str:
        """Encode a mask and decode it again."""
        shape = rng.randint(1, 50), rng.randint(1, 50)
        ids = np.frombuffer(rng.randbytes(shape[0] * shape[1]), np.uint8).reshape(shape)
        ids = ids if rng.random() < 0.3 else ids // rng.choice((16, 64, 128, 255))
        records = list(struct.iter_unpack('=Bi', encode_rle(ids)))
        decoded = np.repeat([i for i, _ in records], [length for _, length in records])
        assert np.array_equal(decoded, np.where(ids == 255, 0, ids).ravel())
        return 'round trips'


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return an image of random pixels, uint8 [height, width, 3]."""
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


def ramp(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return an image of diagonal gradients, uint8 [height, width, 3]."""
    return np.dstack([np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)] * 3)


def mutate(rng: random.Random, original: bytes) -> bytes:
    """Flip, delete, repeat and insert bytes, more often in the header."""
    data = bytearray(original)
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        at = rng.randrange(min(len(data), rng.choice((40, 700, len(data))))) if data else 0
        operation = rng.randrange(5)
        if operation == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif operation == 1 and data:
            data[at:at + 4] = struct.pack('>I', rng.choice(NUMBERS))
        elif operation == 2:
            del data[at:at + rng.choice((1, 10, 10**6))]
        elif operation == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 300)))
        else:
            data[at:at] = data[at:at + rng.choice((2, 50, 500))]
    return bytes(data)


def class_text(rng: random.Random) -> str:
    """Return a text like name=phrase|phrase, seldom a valid one."""
    def part() -> str:
        return ''.join(rng.choice(NAMES if rng.random() < 0.7 else ODD_TEXT) for _ in range(rng.choice((1, 1, 1, 2))))
    if rng.random() < 0.5:
        return rng.choice(NAMES)
    text = part()
    if rng.random() < 0.5:
        text += '=' + '|'.join(part() for _ in range(rng.choice((0, 1, 1, 2, 3, 300))))
    return text


def resident_mb() -> float:
    """Return the resident memory of this process after garbage collection, in MB."""
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


def fuzz(
    cases: int, seed: int = 0, only: str | None = None, show: Callable[[int], object] = lambda done: None
) -> tuple[Counter[tuple[str, str]], float]:
    """Run random cases.

    Args:
        cases: number of all cases.
        seed: of the random cases.
        only: one of SHARES, None for all kinds.
        show: is called with the number of finished cases, ten times.

    Returns:
        Counts {(kind, outcome): n}, and the growth of memory in MB after the first tenth of the cases.

    Raises:
        AssertionError: names the case with an undocumented error or outcome.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)   # it logs every damaged PNG
    runner, done, start_mb = Fuzz(seed), 0, 0.0
    shares = {kind: round(cases * share) for kind, share in SHARES.items() if only in (None, kind)}
    try:
        for tenth in range(10):
            for kind, number in shares.items():
                for case in range(tenth * number // 10, (tenth + 1) * number // 10):
                    try:
                        runner.run(kind, case)
                    except Exception as error:
                        what = f'{type(error).__name__}: {error}'
                        raise AssertionError(f'{kind}, case {case} of seed {seed}: {what}') from error
                    done += 1
            start_mb = start_mb or resident_mb()
            show(done)
    finally:
        runner.close()
    return runner.counts, resident_mb() - start_mb


def main() -> int:
    """Run, print the counts. The exit code is 1 if a case had an undocumented outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', type=int, default=100_000, metavar='N',
                        help='number of cases (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the random cases (default: %(default)s)')
    parser.add_argument('--only', choices=SHARES, help='run one kind of case only')
    arguments = parser.parse_args()
    start = time.monotonic()
    rclpy.init()
    try:
        counts, growth = fuzz(arguments.cases, arguments.seed, arguments.only,
                              lambda done: print(f'{done} cases, {time.monotonic() - start:.0f} s', file=sys.stderr))
    except AssertionError as error:
        print(f'FAILED: {error}')
        return 1
    finally:
        rclpy.try_shutdown()
    for (kind, outcome), number in sorted(counts.items()):
        print(f'{kind:>12}  {outcome:<12} {number:>9,}')
    print(f'{sum(counts.values()):,} cases, no undocumented outcome; memory grew by {growth:.1f} MB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
