"""Segment pictures, a folder of pictures or a video with the words you give.

Pictures: OUT/overlay/NAME.png (for people) and OUT/mask/NAME.png (8-bit ids, 255 unlabelled).
Videos and cameras: OUT/overlay.mp4, and with --masks OUT/mask/000000.png and so on.
Both: OUT/classes.json with ids, names and each class's share of the pixels.

Examples:
  lgseg segment street.jpg --vocabulary "road,car,person=person|pedestrian,sky"
  lgseg segment photos/ --preset cityscapes --out out/photos
  lgseg segment drive.mp4 --vocabulary "road,pavement,car" --threshold 0.4 --masks
  lgseg segment street:7 --frames 100                        (the procedural street camera)
"""

import json
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..drawing import draw_overlay
from ..engines.factory import add_engine_arguments, create_engine
from ..engines.frames import DEFAULT_PIXELS, Frame
from ..engines.weights import DEFAULT_WEIGHTS, load_weights
from ..sim.sources import IMAGES, open_source
from ..vocabulary.classes import split_classes
from ..vocabulary.state import UNLABELLED, VocabularyState
from ..vocabulary.text_source import TextSource


def add_arguments(parser):
    """The command line of `lgseg segment`."""
    parser.add_argument('input', metavar='INPUT',
                        help='picture, folder of pictures, video, camera device, street[:SEED]')
    parser.add_argument('--vocabulary', metavar='LIST',
                        help='classes, "road,car=car|van,sky" (default: those of --preset)')
    parser.add_argument('--preset', default='', help='vocabulary by name: camvid, cityscapes, autoware, nav2 '
                                                     '(default: camvid, where --vocabulary is not given)')
    parser.add_argument('--threshold', type=float, default=0.0, metavar='P',
                        help='least confidence of a labelled pixel, 0 to 1 (default: %(default)s)')
    parser.add_argument('--out', default='out/segment', metavar='DIR', help='folder to write (default: %(default)s)')
    parser.add_argument('--alpha', type=float, default=0.5,
                        help='opacity of the classes, 0 to 1 (default: %(default)s)')
    parser.add_argument('--frames', type=int, metavar='N', help='stop a video or camera after N frames')
    parser.add_argument('--masks', action='store_true', help="write the mask of every frame of a video too")
    parser.add_argument('--weights', default=DEFAULT_WEIGHTS,
                        help='shipped name or .safetensors (default: %(default)s)')
    add_engine_arguments(parser)
    parser.add_argument('--threads', type=int, default=0, help='CPU threads (default: all cores)')
    parser.add_argument('--network-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help='pixels of the picture that the network sees (default: %(default)s)')


def run(arguments):
    """Segment everything and say where it was written."""
    if not 0 <= arguments.alpha <= 1:
        raise ValueError(f'--alpha is {arguments.alpha:g}; give an opacity of 0 to 1')
    if arguments.frames is not None and arguments.frames < 1:
        raise ValueError(f'--frames is {arguments.frames}; give at least 1')
    weights = load_weights(arguments.weights)
    preset = arguments.preset if arguments.vocabulary or arguments.preset else 'camvid'
    classes = split_classes(arguments.vocabulary)
    vocabulary = VocabularyState(TextSource(weights)).replace(classes, preset, arguments.threshold)
    if vocabulary.remark:
        print(f'lgseg segment: {vocabulary.remark}', file=sys.stderr)
    segmenter = Segmenter(create_engine(arguments, weights), vocabulary, arguments.alpha)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = find_pictures(Path(arguments.input).expanduser())
    if pictures:
        segment_pictures(segmenter, pictures, out)
    else:
        segment_video(segmenter, arguments.input, out, arguments.frames, arguments.masks)
    (out / 'classes.json').write_text(json.dumps(segmenter.summary(), indent=2) + '\n')
    print(segmenter.table())
    written = ['overlay/' if pictures else 'overlay.mp4', *(['mask/'] if pictures or arguments.masks else [])]
    print(f'written to {out}: {", ".join(written)}, classes.json')
    return 0


class Segmenter:
    """An engine with its words; counts the pixels of every class as it goes."""

    def __init__(self, engine, vocabulary, alpha):
        self.engine, self.vocabulary, self.alpha = engine, vocabulary, alpha
        self.counts = np.zeros(256, np.int64)
        self.frames = 0

    def __call__(self, bgr):
        """BGR uint8 [H, W, 3] -> ids uint8 [H, W] and the overlay, BGR uint8 [H, W, 3]."""
        ids = self.engine.run([Frame(bgr, 'bgr')], self.vocabulary)[0].ids
        self.counts += np.bincount(ids.ravel(), minlength=256)
        self.frames += 1
        return ids, draw_overlay(bgr, ids, self.vocabulary.names, self.vocabulary.ids, self.alpha)

    def summary(self):
        """What classes.json holds; shares are of all pixels, 0..1."""
        shares = self.counts / max(self.counts.sum(), 1)
        return {'frames': self.frames, 'threshold': self.vocabulary.threshold,
                'classes': [{'id': i, 'name': spec.name, 'phrases': list(spec.phrases),
                             'share': round(float(shares[i]), 5)}
                            for spec, i in zip(self.vocabulary.specs, self.vocabulary.ids)],
                'unlabelled': {'id': UNLABELLED, 'share': round(float(shares[UNLABELLED]), 5)}}

    def table(self):
        """Classes by their share of the pixels, the largest first."""
        summary = self.summary()
        entries = sorted(summary['classes'], key=lambda entry: -entry['share'])
        entries.append({'name': 'unlabelled', **summary['unlabelled']})
        width = max(len(entry['name']) for entry in entries)
        return '\n'.join(f'{entry["id"]:>4}  {entry["name"]:<{width}}  {entry["share"]:7.2%}' for entry in entries)


def find_pictures(path):
    """The picture files that `path` stands for: itself, or what lies directly in a folder; none for anything else."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
    return [path] if path.is_file() and path.suffix.lower() in IMAGES else []


def segment_pictures(segmenter, paths, out):
    """Write mask and overlay of every picture, at its own size.  Raises ValueError naming one that cannot be read."""
    for folder in ('mask', 'overlay'):
        (out / folder).mkdir(exist_ok=True)
    stems = [path.stem for path in paths]
    for path in tqdm(paths, unit='picture', leave=False, disable=None):   # None: only on a terminal
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'{path} cannot be decoded; convert it to JPEG or PNG, or remove it')
        ids, overlay = segmenter(image)
        name = path.stem if stems.count(path.stem) == 1 else path.name   # a.jpg and a.png must not share a file
        write_picture(out / 'mask' / f'{name}.png', ids)
        write_picture(out / 'overlay' / f'{name}.png', overlay)


def write_picture(path, image):
    """Write it.  Raises ValueError where OpenCV says no more than that it did not."""
    if not cv2.imwrite(str(path), image):
        raise ValueError(f'{path} cannot be written; is the disk full, or another --out needed?')


def segment_video(segmenter, spec, out, limit=None, masks=False):
    """Write overlay.mp4 of a video, a camera or another source, up to `limit` frames; masks: mask/NUMBER.png too."""
    with open_source(spec) as source:
        if source.endless and limit is None:
            raise ValueError(f'{spec} has no end; give --frames N')
        if masks:
            (out / 'mask').mkdir(exist_ok=True)
            for old in (out / 'mask').glob('[0-9]' * 6 + '.png'):   # of a longer video
                old.unlink()
        path = out / 'overlay.mp4'
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), source.fps, (source.width, source.height))
        if not video.isOpened():
            raise ValueError(f'{path} cannot be written: this OpenCV has no MPEG-4 encoder; give pictures instead')
        try:
            # A container's frame count is an estimate: it is for the bar only.
            count = min(filter(None, (source.frame_count, limit)), default=None)
            bar = tqdm(islice(source, limit), total=count, unit='frame', leave=False, disable=None)
            for number, frame in enumerate(bar):
                ids, overlay = segmenter(frame)
                video.write(overlay)
                if masks:
                    write_picture(out / 'mask' / f'{number:06}.png', ids)
        finally:
            video.release()
