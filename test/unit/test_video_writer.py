"""Writing videos of any frame rate."""

import cv2
import numpy as np
import pytest

from lgseg_ros.media.video_writer import open_video_writer, representable_fps


@pytest.mark.parametrize('fps', [0.001, 0.5, 23.976, 29.97, 59.94006, 66.123, 119.8765, 119.877, 239.76, 999.99])
def test_videos_of_any_frame_rate_can_be_written(tmp_path, fps):
    video = open_video_writer(tmp_path / 'video.mp4', fps, (64, 48))
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    assert cv2.VideoCapture(str(tmp_path / 'video.mp4')).read()[0]
    assert representable_fps(fps) == pytest.approx(fps, rel=1e-3, abs=0.01)


def test_a_path_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r'missing.*cannot be written'):
        open_video_writer(tmp_path / 'missing/video.mp4', 25, (64, 48))
