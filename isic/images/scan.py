"""Read many images once, in parallel, and apply a function to the bytes of each.

Unit: one result per reference, in the order of the references, whatever process made it.
Processes, since HDF5 reads under one lock a process (30 to 140 us an id): each has its own handles.
They are fresh interpreters on pipes. A fork would copy the locks of pandas', Arrow's and OpenCV's
threads in whatever state they are; multiprocessing's spawn and forkserver run the caller's main
script again in every worker. A worker leaves when its pipe ends, so that none outlives a parent
that is killed.
Trap: a fresh interpreter costs half a second, so that the first `PATIENCE` seconds of work are done
in this process, and only what is worth it goes to workers.
"""

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import IO, Any, TypeVar

from isic.errors import IsicError
from isic.images.progress import Progress
from isic.images.sources import Ref, Sources, check_refs, read_refs
from isic.workers import TIMEOUT, answers, worker_timeout

T = TypeVar("T")
Work = Callable[[bytes], T]

PATIENCE = 0.5  # seconds of work in this process before others are started
STOPPED = 10.0  # seconds that a killed worker gets to be gone
CHUNK = 128  # references handed to a worker at once
_SERVE = "import sys; sys.path[:] = {path!r}; from isic.images.scan import serve; serve()"


def scan(
    sources: Sources,
    refs: Sequence[Ref],
    work: Work[T],
    *,
    workers: int | None = None,
    progress: bool = True,
    title: str = "reading images",
) -> Iterator[T | OSError | None]:
    """`work(bytes)` of each reference in turn; None where missing, the error where unreadable.

    work: A function of a module, since workers import it by name; what it returns is pickled.
    workers: Processes; None takes as many as there are cores, once there is work for them.

    Raises:
        DataError: A reference that leaves the root, or a store that does not open.
        IsicError: `work` raised (names the reference), or a worker died.
    """
    check_refs(refs)
    if getattr(work, "__module__", "") == "__main__":
        raise ValueError(f"expected a function that can be imported, got {work!r} of __main__")
    return _scan(sources, refs, work, workers, Progress(title, total=len(refs), enabled=progress))


def _scan(
    sources: Sources, refs: Sequence[Ref], work: Work[T], workers: int | None, bar: Progress
) -> Iterator[T | OSError | None]:
    """The first results from here, the others from workers."""
    with bar:
        here, done = _applied(sources, refs, work), 0
        patience = PATIENCE if workers is None else 0.0 if workers > 1 else float("inf")
        spent = 0.0
        while done < len(refs):
            if spent >= patience and (len(refs) - done) * spent >= PATIENCE * done:
                break
            start = time.perf_counter()
            result = next(here)
            spent += time.perf_counter() - start
            done += 1
            yield result
            bar.advance(1)
        if done < len(refs):
            cores = workers or len(os.sched_getaffinity(0))
            for chunk in _by_workers(sources, refs[done:], work, cores):
                yield from chunk
                bar.advance(len(chunk))


def _applied(sources: Sources, refs: Iterable[Ref], work: Work[T]) -> Iterator[T | OSError | None]:
    """Read and work in this process, one at a time; `refs` is drawn from as results are."""
    named: deque[Ref] = deque()

    def noted() -> Iterator[Ref]:
        for ref in refs:
            named.append(ref)
            yield ref

    for data in read_refs(sources, noted()):  # type: ignore[arg-type]
        ref = named.popleft()
        if data is None or isinstance(data, OSError):
            yield data
            continue
        try:
            result = work(data)
        except Exception as error:
            kind = type(error) if isinstance(error, IsicError) else IsicError
            raise kind(f"{ref}: {type(error).__name__}: {error}") from error
        yield result


def _by_workers(
    sources: Sources, refs: Sequence[Ref], work: Work[T], cores: int
) -> Iterator[list[T | OSError | None]]:
    """Results in chunks and in order; memory holds those of a few chunks."""
    size = max(1, min(CHUNK, len(refs) // (4 * cores)))
    started = [_Worker(sources, work) for _ in range(min(cores, -(-len(refs) // size)))]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in started:
        idle.put(worker)

    def ask(chunk: Sequence[Ref]) -> list[Any]:
        worker = idle.get()
        try:
            return worker.ask(chunk)
        finally:
            idle.put(worker)

    waiting: deque[Future[list[Any]]] = deque()
    pool = ThreadPoolExecutor(len(started))
    try:
        rest = iter(range(0, len(refs), size))
        for first in rest:
            waiting.append(pool.submit(ask, refs[first : first + size]))
            if len(waiting) > 2 * len(started):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in started:
            worker.stop()  # a thread that waits for it wakes up
        pool.shutdown(cancel_futures=True)


class _Worker:
    """A fresh interpreter that answers chunks of references over its standard streams."""

    def __init__(self, sources: Sources, work: Work[Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # One thread each: the cores are shared out among the workers already.
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"},
            process_group=0,  # Ctrl-C is for the parent, which stops its workers
        )
        self._send((sources, work))

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()

    def ask(self, chunk: Sequence[Ref]) -> list[Any]:
        """The results of `chunk`. Raises what the worker raised."""
        assert self._process.stdout is not None
        named = f"{next((r for r in chunk if r), None)} and {len(chunk) - 1} after it"
        try:
            self._send(list(chunk))
            # nothing is left in the stream's buffer: it answers only what it is asked
            if not answers(self._process.stdout, worker_timeout()):
                raise IsicError(
                    f"a process that reads images gave none for {worker_timeout():g} s at {named}: "
                    f"their disk hangs, or is very slow ({TIMEOUT}=SECONDS waits longer)"
                )
            results, error = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as failure:
            raise IsicError(
                f"a process that reads images ended (code {self._process.wait()}) at {named}; "
                "if it ran out of memory, allow fewer cores: taskset -c 0"
            ) from failure
        if error is not None:
            raise error
        return list(results)

    def stop(self) -> None:
        """End it at once; it holds nothing that needs closing."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # in a read that the kernel does not give up
            self._process.wait(STOPPED)
        for stream in (self._process.stdin, self._process.stdout):
            # A flush of what the dead process did not take fails: nobody waits for it.
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass


def serve() -> None:
    """What a worker runs: answer requests from standard input until it ends, then leave."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what `work` may print is no answer
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # In a thread, so that the end of the parent ends a worker in the middle of a chunk too.
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    try:
        _answer(requests, answers)
    except BrokenPipeError:
        pass  # the parent is gone
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(1)  # the interpreter's own end would wait for the thread and abort


def _answer(requests: "queue.SimpleQueue[Any]", answers: IO[bytes]) -> None:
    """Send the results of each chunk, or the error that ends it all."""
    sources, work = requests.get()
    sizes: queue.SimpleQueue[int] = queue.SimpleQueue()

    def asked() -> Iterator[Ref]:
        while True:
            chunk = requests.get()
            sizes.put(len(chunk))
            yield from chunk

    # One reading through all requests keeps the stores open from one to the next.
    results = _applied(sources, asked(), work)
    answer: tuple[list[Any], IsicError | None]
    try:
        for head in results:
            answer = [head, *islice(results, sizes.get() - 1)], None
            pickle.dump(answer, answers)
            answers.flush()
    except IsicError as error:
        answer = [], error
        pickle.dump(answer, answers)
        answers.flush()


def _receive(stream: IO[bytes], requests: "queue.SimpleQueue[Any]") -> None:
    """Take in what the parent sends; leave with it, or where `work` cannot be imported."""
    try:
        while True:
            requests.put(pickle.load(stream))
    except EOFError:
        os._exit(0)
    except Exception as error:
        sys.stderr.write(f"a worker could not start: {error!r}\n")
        os._exit(1)
