"""The latest-frame buffer: dropped frames are counted, cameras take turns, `close` ends `take`."""

import threading
import time

from lgseg_ros.node.latest_frame_buffer import LatestFrameBuffer


def test_a_new_frame_replaces_a_waiting_one():
    frames = LatestFrameBuffer()
    assert [frames.put('a', n) for n in range(3)] == [False, True, True]
    assert frames.take() == [('a', 2)]
    assert frames.put('a', 9) is False


def test_a_fast_camera_cannot_starve_a_slow_one():
    frames, served = LatestFrameBuffer(), []
    frames.put('slow', 0)
    for n in range(6):
        for _ in range(5):
            frames.put('fast', n)
        served.append(frames.take()[0][0])
        frames.put('slow', n)
    assert served == ['slow', 'fast'] * 3


def test_frames_of_one_size_are_taken_as_a_batch_in_turn():
    frames = LatestFrameBuffer()
    for camera, frame in (('a', 1), ('b', 20), ('c', 3), ('d', 5), ('e', None), ('f', None)):
        frames.put(camera, frame)
    sizes = {1: 'small', 3: 'small', 5: 'small', 20: 'large'}
    assert frames.take(2, sizes.get) == [('a', 1), ('c', 3)]
    frames.put('b', 21)   # replaces the frame that was not taken
    assert frames.take(2, {**sizes, 21: 'large'}.get) == [('b', 21)]
    assert frames.take(1) == [('d', 5)]
    assert [frames.take(4, sizes.get) for _ in range(2)] == [
        [('e', None)],
        [('f', None)],
    ]  # frames of unknown size are not batched


def test_close_ends_a_waiting_take():
    frames, batches = LatestFrameBuffer(), []
    thread = threading.Thread(target=lambda: batches.append(frames.take()))
    thread.start()
    time.sleep(0.05)
    frames.close()
    thread.join(5)
    assert batches == [None] and frames.closed
