"""Work that would block the executor for seconds, in a thread of its own; the callback that needs it awaits it."""

from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rclpy.executors import Executor
from rclpy.task import Future

ResultT = TypeVar('ResultT')


class BackgroundWorker:
    """One thread, and at most one callback at a time that waits for it.

    To be used from the executor's thread. The callback needs a callback group of its own: the others of its group wait.
    """

    def __init__(self) -> None:
        """Begin idle; the thread starts with the first work."""
        self._pool = ThreadPoolExecutor(1, 'lgseg-background')
        self._awaited: Future | None = None     # of the work that a callback waits for
        self._interruption: Exception | None = None

    @property
    def awaited(self) -> bool:
        """Whether a callback waits."""
        return self._awaited is not None

    async def run(self, executor: Executor, work: Callable[[], ResultT]) -> ResultT:
        """Run `work` in the thread, while the executor goes on with other callbacks.

        Args:
            executor: runs the callback that awaits this.
            work: what to do.

        Returns:
            What `work` returns.

        Raises:
            Exception: what `work` raises, or what `interrupt` is given.
        """
        self._awaited = future = Future(executor=executor)
        self._interruption = None

        def wake_callback(done: ThreadFuture[ResultT]) -> None:
            future.set_result(done)
            executor.wake()   # whenever it wakes, rclpy looks whether callbacks that wait can go on
        self._pool.submit(work).add_done_callback(wake_callback)
        try:
            done = await future
        finally:
            self._awaited = None
        if self._interruption:
            raise self._interruption
        result: ResultT = done.result()
        return result

    def interrupt(self, error: Exception) -> bool:
        """Let the callback that waits go on with an error; the work runs to its end.

        Args:
            error: what `run` raises.

        Returns:
            Whether a callback waits.
        """
        if self._awaited is None:
            return False
        self._interruption = error
        self._awaited.set_result(None)
        return True

    def close(self) -> None:
        """Wait for the end of the thread: to leave one in the middle of a library would crash the process."""
        self._pool.shutdown()
