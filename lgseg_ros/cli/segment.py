"""Segment images, a folder of images, a video or a camera.

Images: OUT/overlay/NAME.png (for people) and OUT/mask/NAME.png (8-bit class ids, 255 unlabelled).
Videos and cameras: OUT/overlay.mp4, and with --masks OUT/mask/000000.png and so on.
Both: OUT/classes.json with ids, names and each class's share of the pixels.

The results of an earlier run with the same INPUT are overwritten. Masks of other images may remain in OUT if they have
the same classes; otherwise the command stops. Files in OUT/mask that no run has written are never touched.

Examples:
  lgseg segment street.jpg --vocabulary "road,car,person=person|pedestrian,sky"
  lgseg segment photos/ --preset cityscapes --out out/photos
  lgseg segment drive.mp4 --vocabulary "road,pavement,car" --confidence-threshold 0.4 --masks
  lgseg segment street:7 --frames 100                        (the procedural street camera)
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..engines.base import EngineOptions
from ..engines.preprocessing import Frame
from ..media.output_folder import CLASSES_FILE, VIDEO_FILE, Summary
from ..media.segment_files import Predictor, segment_files
from ..model.weights import load_weights
from ..pipeline import SegmentationPipeline
from ..vocabulary.classes import split_classes
from ..vocabulary.presets import DEFAULT_PRESET
from ..vocabulary.vocabulary import Vocabulary
from .json_output import add_json_flag
from .options import add_engine_options, add_inference_options, add_weights_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `lgseg segment`."""
    parser.add_argument('input', metavar='INPUT',
                        help='image, folder of images, video, camera device, street[:SEED]')
    parser.add_argument('--vocabulary', metavar='LIST',
                        help='classes, "road,car=car|van,sky" (default: those of --preset)')
    parser.add_argument('--preset', default='', help='named vocabulary: camvid, cityscapes, autoware, nav2 '
                                                     f'(default: {DEFAULT_PRESET}, where --vocabulary is not given)')
    parser.add_argument('--confidence-threshold', type=float, default=0.0, metavar='P',
                        help='minimum confidence of a labelled pixel, 0 to 1 (default: %(default)s)')
    parser.add_argument('--out', metavar='DIR', help='output folder (default: out/segment/NAME, of INPUT)')
    parser.add_argument('--alpha', type=float, default=0.5, metavar='A',
                        help='opacity of the classes in overlays, 0 to 1 (default: %(default)s)')
    parser.add_argument('--frames', dest='max_frames', type=int, metavar='N',
                        help='stop a video or camera after N frames')
    parser.add_argument('--masks', action='store_true', help='write the mask of every frame of a video, too')
    add_weights_option(parser)
    add_engine_options(parser)
    add_inference_options(parser)
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment the input and print each class's share of the pixels. Returns 0."""
    options = EngineOptions(
        arguments.engine, arguments.precision, arguments.num_threads, arguments.max_inference_pixels
    )
    pipeline = SegmentationPipeline(load_weights(arguments.weights))
    vocabulary = set_vocabulary(pipeline, arguments)
    out = Path(arguments.out or default_output(arguments.input))

    def make_predictor() -> Predictor:
        pipeline.load_engine(options)
        return lambda bgr: pipeline.run([Frame(bgr, 'bgr')], vocabulary)[0].ids

    try:
        summary = segment_files(arguments.input, out, vocabulary, make_predictor, alpha=arguments.alpha,
                                max_frames=arguments.max_frames, masks=arguments.masks, progress=progress_bar)
    finally:
        pipeline.close()
    if arguments.json:
        print(json.dumps({'out': str(out), **summary}))
        return 0
    print(class_table(summary))
    masks = ['mask/'] if arguments.masks or not summary['video'] else []
    print(f'written to {out}: {", ".join([VIDEO_FILE if summary["video"] else "overlay/", *masks, CLASSES_FILE])}')
    return 0


def set_vocabulary(pipeline: SegmentationPipeline, arguments: argparse.Namespace) -> Vocabulary:
    """Set the vocabulary that was asked for and return it. A warning on it goes to stderr."""
    preset = arguments.preset if arguments.vocabulary or arguments.preset else DEFAULT_PRESET
    vocabulary = pipeline.set_vocabulary(split_classes(arguments.vocabulary), preset, arguments.confidence_threshold)
    if vocabulary.warning:
        print(f'lgseg segment: {vocabulary.warning}', file=sys.stderr)
    return vocabulary


def default_output(source: str) -> Path:
    """Return the output folder of an input: one of its own."""
    name = re.sub(r'[^\w.-]+', '_', Path(source).expanduser().resolve().stem)
    return Path('out/segment') / (name or 'all')


def class_table(summary: Summary) -> str:
    """Return the classes with their ids and shares of the pixels, the largest first, then the unlabelled pixels."""
    rows = [(entry['id'], entry['name'], entry['share'])
            for entry in sorted(summary['classes'], key=lambda entry: -entry['share'])]
    rows.append((summary['unlabelled']['id'], 'unlabelled', summary['unlabelled']['share']))
    width = max(len(name) for _, name, _ in rows)
    return '\n'.join(f'{class_id:>4}  {name:<{width}}  {share:7.2%}' for class_id, name, share in rows)


def progress_bar(items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
    """Show a progress bar, on a terminal only."""
    return tqdm(items, total=total, unit=unit, leave=False, disable=None)   # None: only on a terminal
