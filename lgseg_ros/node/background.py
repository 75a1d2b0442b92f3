"""Work that would hold the executor for seconds, in a thread of its own; the callback that needs it awaits it."""

from concurrent.futures import ThreadPoolExecutor

from rclpy.task import Future


class Background:
    """One thread, and at most one callback at a time that waits for it.

    To be used from the executor's thread.  The callback needs a callback group of its own: its group's others wait.
    """

    def __init__(self):
        self._pool = ThreadPoolExecutor(1, 'lgseg-background')   # the thread begins with the first work
        self._awaited = None        # Future of the work that a callback waits for
        self._interruption = None

    @property
    def awaited(self):
        """Whether a callback waits."""
        return self._awaited is not None

    async def run(self, executor, work, *arguments):
        """work(*arguments), while `executor`, which runs the callback, goes on with others.

        Raises what the work raises, or what `interrupt` is given.
        """
        self._awaited = future = Future(executor=executor)
        self._interruption = None

        def hand_over(done):
            future.set_result(done)
            executor.wake()   # whenever it wakes, rclpy looks whether callbacks that wait can go on
        self._pool.submit(work, *arguments).add_done_callback(hand_over)
        try:
            done = await future
        finally:
            self._awaited = None
        if self._interruption:
            raise self._interruption
        return done.result()

    def interrupt(self, error):
        """Let the callback that waits go on, with `error`; the work runs to its end.  Returns whether one waits."""
        if self.awaited:
            self._interruption = error
            self._awaited.set_result(None)
        return self.awaited

    def close(self):
        """Wait for the end of the thread: to leave one in the middle of a library would crash the process."""
        self._pool.shutdown()

