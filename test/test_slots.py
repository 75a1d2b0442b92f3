"""The newest-frame slots: drops are counted, cameras take turns, closing ends the wait."""

import threading
import time

from lgseg_ros.node.slots import NewestFrames


def test_a_new_frame_replaces_one_that_waits():
    frames = NewestFrames()
    assert [frames.put('a', n) for n in range(3)] == [False, True, True]
    assert frames.take() == ('a', 2)
    assert frames.put('a', 9) is False


def test_a_fast_camera_cannot_starve_a_slow_one():
    frames, served = NewestFrames(), []
    frames.put('slow', 0)
    for n in range(6):
        for _ in range(5):
            frames.put('fast', n)
        served.append(frames.take()[0])
        frames.put('slow', n)
    assert served == ['slow', 'fast'] * 3


def test_close_wakes_the_taker():
    frames, got = NewestFrames(), []
    thread = threading.Thread(target=lambda: got.append(frames.take()))
    thread.start()
    time.sleep(0.05)
    frames.close()
    thread.join(5)
    assert got == [None] and frames.closed
