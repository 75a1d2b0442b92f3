"""Segment pictures, a folder of pictures or a video with the words you give.

Pictures: OUT/overlay/NAME.png (for people) and OUT/mask/NAME.png (8-bit ids, 255 unlabelled).
Videos and cameras: OUT/overlay.mp4, and with --masks OUT/mask/000000.png and so on.
Both: OUT/classes.json with ids, names and each class's share of the pixels.

The same INPUT again is written over; masks of other pictures may stay in OUT if they are of the same classes, else it is
refused.  What is no mask of an earlier run is left alone.

Examples:
  lgseg segment street.jpg --vocabulary "road,car,person=person|pedestrian,sky"
  lgseg segment photos/ --preset cityscapes --out out/photos
  lgseg segment drive.mp4 --vocabulary "road,pavement,car" --threshold 0.4 --masks
  lgseg segment street:7 --frames 100                        (the procedural street camera)
"""

import json
import re
import sys
from collections import Counter
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..engines.factory import add_engine_arguments, create_engine
from ..engines.frames import DEFAULT_PIXELS, Frame, check_numbers
from ..engines.weights import DEFAULT_WEIGHTS, load_weights
from ..media.images import find_images
from ..media.overlay import draw_overlay
from ..media.sources import open_source
from ..media.video_writer import open_video_writer
from ..vocabulary.classes import split_classes
from ..vocabulary.ids import UNLABELLED
from ..vocabulary.vocabulary import VocabularyState
from ..vocabulary.text_source import TextSource
from ..utils.atomic_write import atomic_write
from .figures import write_json

FILM, CLASSES = 'overlay.mp4', 'classes.json'


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
    parser.add_argument('--out', metavar='DIR', help='folder to write (default: out/segment/NAME, of INPUT)')
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
    check(arguments)
    weights = load_weights(arguments.weights)
    vocabulary, given = vocabulary_of(arguments, weights), Path(arguments.input).expanduser()
    out, pictures = out_folder(arguments), find_images(given)
    with nullcontext() if pictures else open_source(arguments.input) as source:
        if source and source.endless and arguments.frames is None:
            raise ValueError(f'{arguments.input} has no end; give --frames N')
        check_input(out, given, pictures)
        stale = stale_masks(out, pictures, vocabulary)
        segmenter = Segmenter(create_engine(arguments, weights), vocabulary, arguments.alpha, film=not pictures)
        for path in stale:
            path.unlink()
        segmenter.write_classes(out)   # first: no mask is without its names, whatever comes between
        try:
            if pictures:
                segment_pictures(segmenter, pictures, out)
            else:
                segment_video(segmenter, source, out, arguments.frames, arguments.masks)
        finally:
            segmenter.write_classes(out)
    print(segmenter.table())
    written = ['overlay/' if pictures else FILM, *(['mask/'] if pictures or arguments.masks else [])]
    print(f'written to {out}: {", ".join(written)}, {CLASSES}')
    return 0


def check(arguments):
    """Raise ValueError for a number or an input that cannot be."""
    if not 0 <= arguments.alpha <= 1:
        raise ValueError(f'--alpha is {arguments.alpha:g}; give an opacity of 0 to 1')
    if arguments.frames is not None and arguments.frames < 1:
        raise ValueError(f'--frames is {arguments.frames}; give at least 1')
    if not arguments.input.strip():   # an unset variable; a path of it would be the present folder
        raise ValueError('INPUT is empty; give a picture, a folder, a video, a camera or street')
    check_numbers(arguments.network_pixels, arguments.threads)


def vocabulary_of(arguments, weights):
    """The words to segment by; a remark on them goes to stderr."""
    preset = arguments.preset if arguments.vocabulary or arguments.preset else 'camvid'
    classes = split_classes(arguments.vocabulary)
    vocabulary = VocabularyState(TextSource(weights)).replace(classes, preset, arguments.threshold)
    if vocabulary.warning:
        print(f'lgseg segment: {vocabulary.warning}', file=sys.stderr)
    return vocabulary


class Segmenter:
    """An engine with its words; counts the pixels of every class as it goes."""

    def __init__(self, engine, vocabulary, alpha, film):
        self.engine, self.vocabulary, self.alpha, self.film = engine, vocabulary, alpha, film
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
        return {'film': self.film, 'frames': self.frames, 'threshold': self.vocabulary.threshold,
                'classes': [{'id': i, 'name': spec.name, 'phrases': list(spec.phrases),
                             'share': round(float(shares[i]), 5)}
                            for spec, i in zip(self.vocabulary.specs, self.vocabulary.ids)],
                'unlabelled': {'id': UNLABELLED, 'share': round(float(shares[UNLABELLED]), 5)}}

    def write_classes(self, out):
        """OUT/classes.json, so far."""
        with atomic_write(out / CLASSES) as partial:
            write_json(partial, self.summary())

    def table(self):
        """Classes by their share of the pixels, the largest first."""
        summary = self.summary()
        entries = sorted(summary['classes'], key=lambda entry: -entry['share'])
        entries.append({'name': 'unlabelled', **summary['unlabelled']})
        width = max(len(entry['name']) for entry in entries)
        return '\n'.join(f'{entry["id"]:>4}  {entry["name"]:<{width}}  {entry["share"]:7.2%}' for entry in entries)


def out_folder(arguments):
    """The folder to write; by default one of the input's own."""
    if arguments.out:
        return Path(arguments.out).expanduser()
    name = re.sub(r'[^\w.-]+', '_', Path(arguments.input).expanduser().resolve().stem)
    return Path('out/segment') / (name or 'all')


def check_input(out, given, pictures):
    """Raise ValueError where the input would be written over."""
    written = {(out / name).resolve() for name in ('mask', 'overlay')}
    if given.resolve() == (out / FILM).resolve() or {path.resolve().parent for path in pictures} & written:
        raise ValueError(f'{given} is where --out {out} is written; give another --out')


def stale_masks(out, pictures, vocabulary):
    """Masks of an earlier run that must go: a film's, and with other classes those that are to be written again.

    Raises ValueError where masks would stay whose ids are of other classes, or pictures that are none.
    """
    there = {path for path in (out / 'mask').glob('*.png') if path.is_file()}
    own = {out / 'mask' / f'{name}.png' for name in mask_names(pictures)}
    if not there:
        return there
    try:
        earlier = json.loads((out / CLASSES).read_text())
        same = {entry['id']: entry['name'] for entry in earlier['classes']} == dict(zip(vocabulary.ids, vocabulary.names))
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f'{out}/mask holds pictures that are not of an earlier run; give another --out') from None
    films = {path for path in there if re.fullmatch(r'\d{6}', path.stem)} if earlier.get('film') else set()
    if not same and there - own - films:
        raise ValueError(f'{out}/mask holds masks of other pictures with other classes; give another --out, or remove it')
    return films if same else there


def mask_names(paths):
    """The pictures' names without their suffixes, but where a.jpg and a.png would share a file."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else path.name for path in paths]


def segment_pictures(segmenter, paths, out):
    """Write mask and overlay of every picture, at its own size.  Raises ValueError naming one that cannot be read."""
    for folder in ('mask', 'overlay'):
        (out / folder).mkdir(exist_ok=True)
    bar = tqdm(paths, unit='picture', leave=False, disable=None)   # None: only on a terminal
    for path, name in zip(bar, mask_names(paths)):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f'{path} cannot be decoded; convert it to JPEG or PNG, or remove it')
        ids, overlay = segmenter(image)
        write_picture(out / 'mask' / f'{name}.png', ids)
        write_picture(out / 'overlay' / f'{name}.png', overlay)


def write_picture(path, image):
    """Write it.  Raises ValueError where OpenCV says no more than that it did not."""
    if not cv2.imwrite(str(path), image):
        raise ValueError(f'{path} cannot be written; is the disk full, or another --out needed?')


def segment_video(segmenter, source, out, limit=None, masks=False):
    """Write overlay.mp4 of an opened source, up to `limit` frames; masks: mask/NUMBER.png too."""
    if masks:
        (out / 'mask').mkdir(exist_ok=True)
    video = open_video_writer(out / FILM, source.fps, (source.width, source.height))
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
