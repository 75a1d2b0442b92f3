"""Time functions side by side: they take turns, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np


class Times(NamedTuple):
    """Times of one subject.

    Attributes:
        wall: milliseconds per call by the clock.
        cpu: milliseconds per call of processor time, all cores together.
    """

    wall: list[float]
    cpu: list[float]


@dataclass(frozen=True)
class TimingResult:
    """Statistics of one subject.

    Attributes:
        name: of the subject.
        median_ms: latency.
        p95_ms: latency.
        p99_ms: latency.
        cpu_ms: median processor time of all cores.
        fps: 1000 / median latency.
        speed: relative to the first subject.
    """

    name: str
    median_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    fps: float
    speed: float

    def as_json(self) -> dict[str, object]:
        """Return the values by name, for JSON."""
        return asdict(self)


def time_in_turn(subjects: Mapping[str, Callable[[int], object]], iterations: int, warmup_iterations: int = 3,
                 progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> dict[str, Times]:
    """Call functions in turn and time them.

    The subject whose turn it is runs twice and the second run is timed. The first brings back into the caches what the
    others displaced; a stream of frames would not have lost it.

    Args:
        subjects: functions of the number of the iteration, by name.
        iterations: how often each is timed.
        warmup_iterations: iterations before, which are not timed.
        progress: wraps the iterations, as tqdm does.

    Returns:
        The times by name.
    """
    times = {name: Times([], []) for name in subjects}
    for n in progress(range(warmup_iterations + iterations)):
        for name, run in subjects.items():
            run(n)
            wall, cpu = time.perf_counter(), time.process_time()
            run(n)
            if n >= warmup_iterations:
                times[name].wall.append((time.perf_counter() - wall) * 1e3)
                times[name].cpu.append((time.process_time() - cpu) * 1e3)
    return times


def summarize(times: Mapping[str, Times]) -> list[TimingResult]:
    """Return the statistics of each subject, in order."""
    results: list[TimingResult] = []
    for name, (wall, cpu) in times.items():
        median, p95, p99 = (float(value) for value in np.percentile(wall, [50, 95, 99]))
        median_ms = round(median, 2)
        first_ms = results[0].median_ms if results else median_ms
        results.append(TimingResult(
            name=name, median_ms=median_ms, p95_ms=round(p95, 2), p99_ms=round(p99, 2),
            cpu_ms=round(float(np.median(cpu)), 2), fps=round(1000 / median, 1),
            speed=round(first_ms / median_ms, 2)))
    return results


def format_table(results: Sequence[TimingResult]) -> str:
    """Return results as a table of text."""
    width = max(len(result.name) for result in results)
    lines = [f'{"":<{width}}  median     p95     p99  cpu ms     fps  speed']
    for result in results:
        lines.append(f'{result.name:<{width}}  {result.median_ms:6.1f}  {result.p95_ms:6.1f}  {result.p99_ms:6.1f}  '
                     f'{result.cpu_ms:6.1f}  {result.fps:6.1f}  {result.speed:4.2f}x')
    return '\n'.join(lines)
