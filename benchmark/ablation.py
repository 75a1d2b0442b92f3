r"""The table of heads: LSeg-style, DenseCLIP-style, and ours with no, one or both bridges.

Every entry is one "lgseg train" with the settings given here; backbone, pyramid, upsampling, losses and data are the
same.  Ours without bridges still has what the baselines have not, its CNN blocks and a learned projection of the text:
the contribution of the bridges is its distance to ours with them.

Entries that are finished are not run again and one that was stopped goes on, so the command can be interrupted and
repeated for days, and on another machine: entries of NAME.json with the same settings are taken as they are.
After a change of the code give another --name.  The table is written after each entry.  Metrics are those of the last
epoch: nothing is chosen on the validation split.

    python benchmark/ablation.py --data ../shared/data/camvid --text-embeddings ../shared/text/clip_vit_b16_bank.npz
    python benchmark/ablation.py --data DIR --text-embeddings NPZ --epochs 100 --crop 352x480 --batch-size 16
    python benchmark/ablation.py --data DIR --text-embeddings NPZ --backbone resnet18 --heads text-to-image both \
                                 --name resnet18
    python benchmark/ablation.py --data DIR --text-embeddings NPZ --unseen car,tree,pavement --heads lseg both \
                                 --name unseen
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from head_cost import count_gmacs, count_parameters, time_heads

from lgseg_ros.cli import eval as evaluation
from lgseg_ros.cli import train as training
from lgseg_ros.engines.preprocessing import Frame, network_size, to_network
from lgseg_ros.training.dataset import load_dataset, read_description
from lgseg_ros.training.distributed import select_device
from lgseg_ros.training.export import portable
from lgseg_ros.training.prompts import evaluation_prompts
from lgseg_ros.training.run_directory import load_run, read_log, versions
from lgseg_ros.utils.hardware import machine
from lgseg_ros.vocabulary.classes import parse_classes
from lgseg_ros.vocabulary.text_embeddings import load_text_embeddings

HEADS = {
    'lseg': ('LSeg-style', ['--head', 'lseg']),
    'denseclip': ('DenseCLIP-style', ['--head', 'denseclip']),
    'none': ('ours, no bridge', ['--no-image-to-text', '--no-text-to-image']),
    'image-to-text': ('ours, image to text only', ['--no-text-to-image']),
    'text-to-image': ('ours, text to image only', ['--no-image-to-text']),
    'both': ('ours, both bridges', []),
}
# Other prompts for CamVid's classes; "cyclist" and "traffic sign" are among the data set's own.
PROMPTS = ('car=large family car,pedestrian=person,road=street,pavement=sidewalk,bicyclist=cyclist,tree=vegetation,'
           'sign=traffic sign,building=house')


@dataclass(frozen=True)
class Entry:
    """One training of the table."""

    head: str
    seed: int
    folder: Path


def parse(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line.  What it does not know goes to "lgseg train" as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog='Any other option is passed to "lgseg train": --batch-size, --lr, '
                                            '--blocks, ...')
    parser.add_argument('--data', required=True, metavar='DIR', help='trained on its train split, measured on val')
    parser.add_argument('--text-embeddings', required=True, metavar='NPZ')
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS), metavar='H',
                        help=f'of: {", ".join(HEADS)}')
    parser.add_argument('--seeds', type=int, default=3, help='how many, from 0 on (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=24, help='default: %(default)s')
    parser.add_argument('--crop', default='256x352', metavar='HxW', help='default: %(default)s')
    parser.add_argument('--device', default='auto', help='default: %(default)s')
    parser.add_argument('--unseen', default='', metavar='LIST', help='classes whose labels no training sees')
    parser.add_argument('--prompts', default=PROMPTS,
                        help='other prompts to measure with; empty: none (default: %(default)s)')
    parser.add_argument('--runs', default='runs/ablation', metavar='DIR',
                        help='of the trainings (default: %(default)s)')
    parser.add_argument('--results', default='benchmark/results', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--name', default='ablation', help='of runs and results (default: %(default)s)')
    parser.add_argument('--iterations', type=int, default=30, help='of timing; 0: none (default: %(default)s)')
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, measure, write NAME.json and NAME.md."""
    arguments, rest = parse(argv)
    folder = Path(arguments.runs) / arguments.name
    # Seed by seed: after the first round there is a whole table, if with one seed.
    entries = [Entry(head, seed, folder / f'{head}-seed{seed}')
               for seed in range(arguments.seeds) for head in arguments.heads]
    results = Results(Path(arguments.results) / f'{arguments.name}.json', settings_of(arguments, rest))
    for number, entry in enumerate(entries, 1):
        print(f'[{number}/{len(entries)}] {HEADS[entry.head][0]}, seed {entry.seed}: ', end='', flush=True)
        if entry.folder.exists() or (entry.head, entry.seed) not in results.metrics:
            results.add(entry, train_and_measure(arguments, rest, entry))
        print(f'mIoU {results.metrics[entry.head, entry.seed]["miou"]:.2f}', flush=True)
    if arguments.iterations and all(entry.folder.exists() for entry in entries if entry.seed == 0):
        results.costs = costs(arguments, entries)
        results.write()
    print(results.path.with_suffix('.md').read_text())


def train_and_measure(arguments: argparse.Namespace, rest: list[str], entry: Entry) -> dict[str, Any]:
    """The metrics of an entry, trained as far as it is not yet."""
    command = train_command(arguments, rest, entry)
    call(training, command, command)
    if arguments.prompts:
        rename(arguments, entry)
    return metrics_of(entry.folder, [name.strip() for name in arguments.unseen.split(',') if name.strip()])


def train_command(arguments: argparse.Namespace, rest: list[str], entry: Entry) -> list[str]:
    """The entry as a command line of lgseg, which anybody can run by itself."""
    return ['train', '--data', arguments.data, '--text-embeddings', arguments.text_embeddings,
            '--out', str(entry.folder), '--seed', str(entry.seed),
            '--epochs', str(arguments.epochs), '--evaluate-every', str(arguments.epochs), '--crop', arguments.crop,
            '--device', arguments.device, *(['--unseen', arguments.unseen] if arguments.unseen else []),
            *HEADS[entry.head][1], *rest]


def call(module: ModuleType, command: list[str], *more: object) -> None:
    """Run a subcommand of lgseg in this process, without its tables."""
    parser = argparse.ArgumentParser(prog=f'lgseg {command[0]}')
    module.add_arguments(parser)
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        module.run(parser.parse_args(command[1:]), *more)


def rename(arguments: argparse.Namespace, entry: Entry) -> None:
    """Measure a finished run with other prompts for its classes, once for the same prompts."""
    path = entry.folder / 'renamed.json'
    prompts = {spec.name: list(spec.phrases) for spec in parse_classes(arguments.prompts.split(','))}
    if not path.exists() or json.loads(path.read_text())['prompts'] != prompts:
        call(evaluation,
             ['eval', '--run', str(entry.folder), '--text-embeddings', arguments.text_embeddings,
              '--data', arguments.data, '--split', 'val', '--device', arguments.device,
              '--prompts', arguments.prompts, '--json', str(path)])


def settings_of(arguments: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """What all rows of a table share."""
    return {'data': read_description(arguments.data).name, 'epochs': arguments.epochs, 'crop': arguments.crop,
            'device': select_device(arguments.device).type, 'unseen': arguments.unseen, 'prompts': arguments.prompts,
            'more': portable(' '.join(rest))}


class Results:
    """The metrics of finished entries, in NAME.json with everything and in NAME.md for people."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Begin with the content of `path`, if it exists.  Ends the program if it is of other settings."""
        self.path, self.settings, self.metrics, self.costs = path, settings, {}, {}
        if path.exists():
            stored = json.loads(path.read_text())
            if stored['settings'] != settings:
                raise SystemExit(f'{path} holds a table of other settings: {describe(stored["settings"])}\n'
                                 f'asked for: {describe(settings)}\ngive another --name, or these settings')
            self.metrics = {(entry['head'], entry['seed']): entry['metrics'] for entry in stored['entries']}
            self.costs = stored['costs']

    def add(self, entry: Entry, metrics: dict[str, Any]) -> None:
        """Put the metrics of an entry into the files."""
        self.metrics[entry.head, entry.seed] = metrics
        self.write()

    def write(self) -> None:
        """Both files, the rows in the order of `HEADS`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table = tabulate(self.metrics, self.costs)
        entries = [{'head': head, 'seed': seed, 'metrics': metrics}
                   for (head, seed), metrics in sorted(self.metrics.items(), key=lambda item: item[0][::-1])]
        self.path.write_text(json.dumps({'settings': self.settings, 'machine': machine(),
                                         'versions': versions(), 'rows': table, 'costs': self.costs,
                                         'entries': entries}, indent=2) + '\n')
        self.path.with_suffix('.md').write_text(markdown(self.settings, table))


def tabulate(metrics: dict[tuple[str, int], dict[str, Any]],
             costs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A dict per head: its metrics by seed, their mean and spread (sample standard deviation), and its cost.

    metrics: {(head, seed): as `metrics_of`}; costs: {head: as `costs`}.
    """
    table = []
    for head in HEADS:
        own = [found for (name, _), found in sorted(metrics.items()) if name == head]
        if own:
            row = {'head': head, 'title': HEADS[head][0], 'seeds': len(own)}
            row |= {key: spread([f[key] for f in own]) for key in own[0] if key != 'iou'}
            row['iou'] = {name: round(statistics.mean(f['iou'][name] for f in own), 2) for name in own[0]['iou']}
            table.append({**row, **costs.get(head, {})})
    return table


def metrics_of(folder: Path, unseen: list[str]) -> dict[str, Any]:
    """Return mIoU and IoU per class of a finished run, percent.

    With unseen classes also the means of seen and unseen classes, and their harmonic mean.
    """
    validation = read_log(folder)[-1]['validation']
    iou = {name: value or 0.0 for name, value in validation['iou'].items()}
    metrics = {'miou': validation['miou'], 'iou': iou}
    if unseen:
        metrics['seen'] = statistics.mean(value for name, value in iou.items() if name not in unseen)
        metrics['unseen'] = statistics.mean(iou[name] for name in unseen)
        metrics['harmonic'] = harmonic(metrics['seen'], metrics['unseen'])
    renamed = folder / 'renamed.json'
    if renamed.exists():
        metrics['renamed'] = json.loads(renamed.read_text())['miou']
    return metrics


def harmonic(a: float, b: float) -> float:
    """2ab / (a + b); 0 where both are."""
    return 2 * a * b / (a + b) if a + b else 0.0


def spread(values: list[float]) -> dict[str, Any]:
    """Values with their mean and sample standard deviation (None for one value)."""
    return {'values': [round(v, 2) for v in values], 'mean': round(statistics.mean(values), 2),
            'std': round(statistics.stdev(values), 2) if len(values) > 1 else None}


def costs(arguments: argparse.Namespace, entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """{head: parameters, gmacs, cpu_ms} of the trained networks of the first seed, at the data set's own prompts."""
    models = {entry.head: load_run(entry.folder).model for entry in entries if entry.seed == 0}
    dataset = load_dataset(arguments.data, 'val')
    prompts = evaluation_prompts(dataset.specs, load_text_embeddings(arguments.text_embeddings))
    embeddings = torch.from_numpy(prompts.vectors)
    size = network_size(*dataset.images[0].shape[:2])
    image = to_network(Frame(np.ascontiguousarray(dataset.images[0]), 'rgb'), size)
    milliseconds = time_heads(models, embeddings, image, arguments.iterations)
    found = {}
    for head, model in models.items():
        with torch.no_grad():
            rows = model.project_text(embeddings)
        found[head] = {'parameters': count_parameters(model), 'gmacs': round(count_gmacs(model, rows, size), 3),
                       'cpu_ms': milliseconds[head], 'size': f'{size[1]}x{size[0]}', 'rows': len(rows)}
    return found


COLUMNS = (('mIoU', 'miou'), ('seen', 'seen'), ('unseen', 'unseen'), ('harmonic', 'harmonic'), ('renamed', 'renamed'))


def markdown(settings: dict[str, Any], table: list[dict[str, Any]]) -> str:
    """The table with the settings that all its rows share."""
    columns = [(title, key) for title, key in COLUMNS if key in table[0]]
    timed = all('cpu_ms' in row for row in table)
    header = ['head', *(title for title, _ in columns), *(['M parameters', 'GMACs', 'CPU ms'] if timed else []),
              'seeds']
    lines = [' | '.join(header), ' | '.join('---' for _ in header)]
    for row in table:
        cells = [row['title'], *(show(row[key]) for _, key in columns)]
        if timed:
            cells += [f'{row["parameters"] / 1e6:.2f}', f'{row["gmacs"]:.2f}', f'{row["cpu_ms"]:.1f}']
        lines.append(' | '.join([*cells, str(row['seeds'])]))
    notes = [f'Percent, mean ± sample standard deviation over the seeds.  {describe(settings)}.']
    if 'renamed' in table[0]:
        notes.append(f'renamed: mIoU with other prompts, {settings["prompts"]}.')
    if timed:
        notes.append('Parameters, multiply-accumulates and ONNX Runtime CPU milliseconds per image of '
                     f'{table[0]["size"]} with {table[0]["rows"]} text embeddings; all heads took turns in one run.')
    return '\n'.join([*(f'| {line} |' for line in lines), '', *notes, ''])


def describe(settings: dict[str, Any]) -> str:
    """The settings in a line."""
    line = f'{settings["data"]} val, {settings["epochs"]} epochs, crop {settings["crop"]}, {settings["device"]}'
    line += f', unseen in training: {settings["unseen"]}' if settings['unseen'] else ''
    return line + (f', {settings["more"]}' if settings['more'] else '')


def show(value: dict[str, Any]) -> str:
    """'71.20 ± 0.35'."""
    return f'{value["mean"]:.2f}' + (f' ± {value["std"]:.2f}' if value['std'] is not None else '')


if __name__ == '__main__':
    main()
