"""Timing things side by side: all take turns, so that a busy machine slows all alike."""

import time
from typing import NamedTuple

import numpy as np


class Times(NamedTuple):
    """Of one subject: milliseconds a call, by the clock and of all cores together (processor time)."""

    wall: list
    cpu: list

    def figures(self):
        """median_ms, p95_ms, p99_ms, cpu_ms (median processor time) and fps (from the median)."""
        median, p95, p99 = np.percentile(self.wall, [50, 95, 99])
        return {'median_ms': round(float(median), 2), 'p95_ms': round(float(p95), 2), 'p99_ms': round(float(p99), 2),
                'cpu_ms': round(float(np.median(self.cpu)), 2), 'fps': round(1000 / float(median), 1)}


def time_in_turn(subjects, rounds, warm_up=3, progress=iter):
    """{name: Times} of functions of the round's number; warm-up rounds do not count.

    Whose turn it is runs twice and the second run counts: the first brings back into the caches what the others
    drove out, which a stream of frames would not have lost.
    subjects: {name: function}; progress: wraps the rounds, as tqdm does.
    """
    times = {name: Times([], []) for name in subjects}
    for n in progress(range(warm_up + rounds)):
        for name, run in subjects.items():
            run(n)
            wall, cpu = time.perf_counter(), time.process_time()
            run(n)
            if n >= warm_up:
                times[name].wall.append((time.perf_counter() - wall) * 1e3)
                times[name].cpu.append((time.process_time() - cpu) * 1e3)
    return times


def rows_of(times):
    """A dict per subject, in order: name, its figures, and speed: how many times the first subject's."""
    rows = [{'name': name, **values.figures()} for name, values in times.items()]
    return [{**row, 'speed': round(rows[0]['median_ms'] / row['median_ms'], 2)} for row in rows]


def table(rows):
    """Rows of `rows_of` as text."""
    width = max(len(row['name']) for row in rows)
    lines = [f'{"":<{width}}  median     p95     p99  cpu ms     fps  speed']
    for row in rows:
        lines.append(f'{row["name"]:<{width}}  {row["median_ms"]:6.1f}  {row["p95_ms"]:6.1f}  {row["p99_ms"]:6.1f}  '
                     f'{row["cpu_ms"]:6.1f}  {row["fps"]:6.1f}  {row["speed"]:4.2f}x')
    return '\n'.join(lines)
