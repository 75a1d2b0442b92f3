"""How well weights generalise: mIoU on a split of every data set under a folder, with four sets of prompts.

    python benchmark/generality.py --json benchmark/results/generality.json
    python benchmark/generality.py --run runs/broad --variants own --sets corridors gardens

    own        the data set's own prompts
    renamed    other phrases for the classes (OTHER_PROMPTS)
    negatives  own, and 100 phrases that no labelled pixel can be called by
    all        own, and every other phrase that has a text embedding

A pixel that goes to a phrase which is related to its label (synonym, kind, part: lgseg_ros/vocabulary/synonyms.yaml) is
counted apart from one that goes to an unrelated phrase.  The macro mean over data sets, not CamVid alone, is the number
to choose by.  Weights with an ONNX file are measured by ONNX Runtime in fp32, others and runs by torch.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from lgseg_ros.cli.json_output import add_json_option, write_json
from lgseg_ros.engines.preprocessing import DEFAULT_PIXELS
from lgseg_ros.model.weights import DEFAULT_WEIGHTS, load_weights
from lgseg_ros.training.dataset import Dataset, load_dataset
from lgseg_ros.training.evaluation import Predictor, engine_predictor
from lgseg_ros.training.metrics import overlap, percent
from lgseg_ros.training.prompts import PromptBatch, make_prompts
from lgseg_ros.vocabulary.classes import ClassSpec
from lgseg_ros.vocabulary.relations import load_relations, negative_phrases, related_to_class
from lgseg_ros.vocabulary.text_embeddings import TextEmbeddings

NUM_NEGATIVES = 100
DOMAINS = {
    'streets': ('camvid', 'idd_street', 'campus_road', 'facades'), 'indoors': ('corridors',), 'water': ('waterways',),
    'gardens and fields': ('gardens', 'crops'), 'animals': ('animals', 'predators', 'pets'), 'people': ('clothing',),
    'rocks': ('rocks',)}
# Other prompts by the first phrase of a class, best first.  One that is another class of the data set is passed over.
# Classes that are not here (sky, sand, lion...) have no other name among the phrases and keep their own.
OTHER_PROMPTS = {
    'road': ('street',), 'building': ('house',), 'pavement': ('sidewalk',), 'sidewalk': ('pavement',),
    'tree': ('vegetation',), 'traffic sign': ('direction sign',), 'car': ('large family car',),
    'pedestrian': ('person',), 'cyclist': ('rider',), 'vegetation': ('plant', 'tree'), 'terrain': ('field', 'grass'),
    'fence': ('railing',), 'pole': ('column',), 'person': ('pedestrian',), 'rider': ('motorcyclist',),
    'truck': ('lorry',), 'bus': ('minibus',), 'motorcycle': ('motorbike',), 'water': ('lake',), 'dirt': ('soil',),
    'plant': ('potted plant',), 'mountain': ('hill',), 'bag': ('handbag',), 'door': ('door-stuff',),
    'window': ('windowpane',), 'floor': ('floor-tile',), 'cabinet': ('cupboard',), 'ceiling': ('ceiling-tile',),
    'chair': ('seat',), 'railing': ('bannister',), 'stairs': ('stairway',), 'soil': ('dirt',), 'grass': ('field',),
    'ground': ('terrain',), 'rock': ('stone',), 'boat': ('rowing boat',), 'wall': ('wall-concrete',),
    'wall-brick': ('wall-stone',),
}
VARIANTS = ('own', 'renamed', 'negatives', 'all')
Prepare = Callable[[PromptBatch], Predictor]


class Source(NamedTuple):
    """What is measured: text embeddings, a function from prompts to a predictor, and facts for the JSON."""

    text_embeddings: TextEmbeddings
    prepare: Prepare
    facts: dict[str, Any]


class Prompts(NamedTuple):
    """The prompts of a variant: phrases by class, then groups of further phrases.

    related: bool [C, groups], whether the phrases of a group are related to a class.
    """

    classes: list[Sequence[str]]
    groups: list[list[str]]
    related: npt.NDArray[np.bool_]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='../shared/data', metavar='DIR',
                        help='folder of data sets (default: %(default)s)')
    parser.add_argument('--split', default='val', help='default: %(default)s')
    parser.add_argument('--sets', nargs='+', metavar='NAME', help='folders of the data sets to measure (default: all)')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--weights', default=DEFAULT_WEIGHTS, metavar='W',
                        help='shipped name or .safetensors (default: %(default)s)')
    source.add_argument('--run', metavar='DIR', help='folder of a training run: its averaged network')
    parser.add_argument('--text-embeddings', metavar='NPZ', help="text embeddings of --run (default: the run's)")
    parser.add_argument('--max-inference-pixels', type=int, default=DEFAULT_PIXELS, metavar='N',
                        help='default: %(default)s')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS), help='default: all')
    parser.add_argument('--limit', type=int, default=0, metavar='N', help='images per data set, evenly spaced; 0: all')
    parser.add_argument('--num-threads', type=int, default=0, metavar='N', help='CPU threads (default: all cores)')
    add_json_option(parser)
    arguments = parser.parse_args(argv)
    folders = [path.parent for path in sorted(Path(arguments.data).glob('*/dataset.yaml'))
               if not arguments.sets or path.parent.name in arguments.sets]
    missing = set(arguments.sets or ()) - {folder.name for folder in folders}
    if missing or not folders:
        parser.error(f'{arguments.data} has no data set {", ".join(sorted(missing)) or "at all"}')
    measured, start = open_source(arguments), time.perf_counter()
    results: dict[str, dict[str, Any]] = {}
    for folder in folders:
        dataset = load_dataset(folder, arguments.split)
        results[folder.name] = {variant: measure(measured, dataset, variant, arguments.limit)
                                for variant in arguments.variants}
        entries = {variant: entry for variant, entry in results[folder.name].items() if entry}
        for variant in set(entries) - {'own'} if 'own' in entries else ():
            entries[variant]['loss'] = round(entries['own']['miou'] - entries[variant]['miou'], 2)
        print(folder.name, *(f'{variant} {entry["miou"]}' for variant, entry in entries.items()), file=sys.stderr,
              flush=True)
    means = summarize(results, arguments.variants)
    print(markdown(results, means, arguments.variants))
    write_json(arguments.json, {'benchmark': 'generality', **measured.facts, 'split': arguments.split,
                                'max_inference_pixels': arguments.max_inference_pixels, 'limit': arguments.limit,
                                'seconds': round(time.perf_counter() - start), 'means': means, 'sets': results})
    return 0


def open_source(arguments: argparse.Namespace) -> Source:
    """Open the weights or the run."""
    if arguments.run:
        return _open_run(arguments)
    weights = load_weights(arguments.weights)
    facts = {'weights': weights.path.stem, 'weights_sha256': weights.sha256}
    if weights.path.with_suffix('.onnx').exists():
        from lgseg_ros.engines.onnxruntime_engine import OnnxRuntimeEngine
        engine = OnnxRuntimeEngine(weights, arguments.num_threads, arguments.max_inference_pixels, 'fp32')
        return Source(weights.text_embeddings, lambda prompts: engine_predictor(engine, prompts),
                      {**facts, 'engine': 'onnxruntime'})
    from lgseg_ros.model.weights_file import load_network
    return Source(weights.text_embeddings, _torch(load_network(weights), arguments), {**facts, 'engine': 'torch'})


def _open_run(arguments: argparse.Namespace) -> Source:
    import torch

    from lgseg_ros.training.run_directory import load_run, read_text_embeddings
    run = load_run(arguments.run)
    text_embeddings = read_text_embeddings(run, arguments.text_embeddings)
    with torch.no_grad():
        rows = run.model.project_text(torch.from_numpy(text_embeddings.vectors)).numpy()
    return Source(TextEmbeddings(text_embeddings.names, rows), _torch(run.model, arguments),
                  {'run': run.folder.resolve().name, 'epoch': run.epoch, 'engine': 'torch'})


def _torch(model: Any, arguments: argparse.Namespace) -> Prepare:
    import torch

    from lgseg_ros.training.evaluation import torch_predictor
    if arguments.num_threads:
        torch.set_num_threads(arguments.num_threads)
    model = model.to(memory_format=torch.channels_last)
    return lambda prompts: torch_predictor(model, torch.from_numpy(prompts.vectors), prompts.class_indices,
                                           arguments.max_inference_pixels)


def choose_prompts(specs: Sequence[ClassSpec], names: Sequence[str], variant: str) -> Prompts | None:
    """Return the prompts of a variant; None where a data set has no negatives (a class "background" is anything)."""
    classes: list[Sequence[str]] = [spec.phrases for spec in specs]
    own = {phrase for phrases in classes for phrase in phrases}
    more: list[str] = []
    if variant == 'renamed':
        classes = [other_prompt(phrases, own, names) for phrases in classes]
    elif variant == 'negatives':
        negatives = negative_phrases(specs, names)
        if not negatives:
            return None
        more = [negatives[i] for i in np.random.default_rng(0).permutation(len(negatives))[:NUM_NEGATIVES]]
    elif variant == 'all':
        more = [name for name in names if name not in own]
    # A class that is named by an attribute ("background") may be anything.
    attributes = load_relations().attributes
    relations = [set(names) if attributes & {*spec.phrases} else related_to_class(spec) for spec in specs]
    # Phrases that are related to the same classes share an id, because ids have 8 bits.
    groups: dict[tuple[bool, ...], list[str]] = {}
    for name in more:
        groups.setdefault(tuple(name in relation for relation in relations), []).append(name)
    related = np.array(list(groups), bool).reshape(-1, len(specs)).T
    return Prompts(classes, list(groups.values()), related)


def other_prompt(phrases: Sequence[str], own: set[str], names: Sequence[str]) -> Sequence[str]:
    """Return another known phrase for a class, or its own phrases where there is none that no other class has."""
    for other in OTHER_PROMPTS.get(phrases[0], ()):
        if other in names and other not in own - set(phrases):
            return (other,)
    return phrases


def measure(source: Source, dataset: Dataset, variant: str, limit: int = 0) -> dict[str, Any] | None:
    """Return the results of one variant on a data set, percent; None where it has no negatives."""
    prompts = choose_prompts(dataset.specs, source.text_embeddings.names, variant)
    if prompts is None:
        return None
    predict = source.prepare(make_prompts(source.text_embeddings, [*prompts.classes, *prompts.groups]))
    confusion = np.zeros((len(dataset.specs), len(prompts.classes) + len(prompts.groups)), np.int64)
    count = min(limit or len(dataset), len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    for i in tqdm(chosen, leave=False, disable=None, desc=variant):
        label, mask = dataset.labels[i], predict(dataset.images[i])[0]
        valid = label < len(dataset.specs)
        pairs = label[valid].astype(np.int64) * confusion.shape[1] + mask[valid]
        confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    return {**results_of(confusion, [spec.name for spec in dataset.specs], prompts.related),
            'phrases': sum(map(len, (*prompts.classes, *prompts.groups))), 'images': count}


def results_of(confusion: npt.NDArray[np.int64], names: Sequence[str],
               related: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return metrics of a confusion matrix [C, C + groups].

    `miou` counts every pixel that goes to another phrase as wrong; `miou_without_related` leaves out those that go to a
    phrase which is related to their label; `to_related` and `to_unrelated` are shares of the labelled pixels.
    """
    hit, truth, union = overlap(confusion)
    others = confusion[:, len(names):]
    excused = (others * related).sum(1)
    present, total = truth > 0, max(truth.sum(), 1)
    iou, tolerant = (hit / np.maximum(divisor, 1) for divisor in (union, union - excused))
    return {'miou': percent(iou[present].mean()), 'miou_without_related': percent(tolerant[present].mean()),
            'to_related': percent(excused.sum() / total),
            'to_unrelated': percent((others.sum() - excused.sum()) / total),
            'iou': {name: percent(value) for name, value, shown in zip(names, iou, present, strict=True) if shown}}


KEYS = ('miou', 'loss', 'miou_without_related', 'to_related', 'to_unrelated')


def summarize(results: dict[str, dict[str, Any]], variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return macro means of every variant over data sets, over those without CamVid, and of each domain."""
    groups = {'mean': list(results), 'mean without camvid': [name for name in results if name != 'camvid']}
    groups |= {domain: [name for name in members if name in results] for domain, members in DOMAINS.items()}
    means: dict[str, dict[str, Any]] = {}
    for title, members in groups.items():
        if len(members) > (title in DOMAINS):   # the mean of one data set says nothing new
            found = {variant: [results[name][variant] for name in members if results[name][variant]]
                     for variant in variants}
            means[title] = {variant: {key: round(float(np.mean([entry[key] for entry in entries])), 2)
                                      for key in KEYS if key in entries[0]}
                            for variant, entries in found.items() if entries}
    return means


def markdown(results: dict[str, dict[str, Any]], means: dict[str, dict[str, Any]], variants: Sequence[str]) -> str:
    """Return the table: mIoU per variant, its loss, and for added phrases the shares of pixels that go to them.

    A data set without negatives is not in the mean of that variant; its loss is a mean over the others.
    """
    columns = [(variant, variant, 'miou') for variant in variants]
    columns += [(f'{variant}: loss', variant, 'loss') for variant in ('renamed', 'negatives') if 'own' in variants]
    columns += [('negatives: to unrelated', 'negatives', 'to_unrelated'),
                ('all: without related', 'all', 'miou_without_related'),
                ('all: to related', 'all', 'to_related'), ('all: to unrelated', 'all', 'to_unrelated')]
    columns = [column for column in columns if column[1] in variants]
    lines = [' | '.join(['data set', *(title for title, _, _ in columns)]),
             ' | '.join('---' for _ in range(len(columns) + 1))]
    for name, entry in {**results, **{f'**{title}**': entry for title, entry in means.items()}}.items():
        cells = [f'{round(entry[variant][key], 1) + 0:.1f}' if entry.get(variant) else '-'   # + 0: no -0.0
                 for _, variant, key in columns]
        lines.append(' | '.join([name, *cells]))
    return '\n'.join(f'| {line} |' for line in lines)


if __name__ == '__main__':
    sys.exit(main())
