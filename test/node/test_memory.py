"""Freed memory is returned to the operating system."""

import ctypes
import subprocess
import sys

import pytest

# Blocks of 60 kB are allocated on glibc's heap. The last one keeps the end of the heap in use, so that `free` alone
# returns nothing to the operating system.
SCRIPT = """
import ctypes, os, time
import rclpy
from rclpy.executors import SingleThreadedExecutor
from lgseg_ros.node import memory

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6

memory.TRIM_PERIOD_S = 0.5
rclpy.init()
node = rclpy.create_node('trimming')
memory.start_malloc_trim(node)
blocks = [bytearray(60_000) for _ in range(1000)]
last = bytearray(60_000)
del blocks
freed = resident()
executor = SingleThreadedExecutor()
executor.add_node(node)
end = time.monotonic() + 20
while resident() > freed - 30 and time.monotonic() < end:
    executor.spin_once(timeout_sec=0.1)
print(freed - resident())
rclpy.shutdown()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'malloc_trim'), reason='not glibc')
def test_freed_memory_is_returned_while_the_node_runs():
    ran = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, timeout=60)
    assert float(ran.stdout.splitlines()[-1]) > 30, ran.stderr
