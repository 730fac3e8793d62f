"""What people's code does to its process: each must meet in a sweep what it meets in a script."""

import asyncio
import contextvars
import decimal
import locale
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

PAUSE_S = 0.12
BACKENDS = ("loky", "multiprocessing", "threading")
HOME = Path.cwd()
STATE = contextvars.ContextVar("state", default="unset")
STATE.set("set by the module")
decimal.getcontext().prec = 50
np.seterr(all="raise")
random.seed(1)
np.random.seed(1)
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE seen (n INTEGER)")
loop = asyncio.new_event_loop()
calls = []


def pause():
    """Long enough for batches to be of one point, and for whoever else is in the process to do something."""
    time.sleep(PAUSE_S)


def context(n):
    pause()
    try:
        overflow = str(np.full(1, 1e308) * 10)
    except FloatingPointError:
        overflow = "raised"
    STATE.set(f"{STATE.get()}, {n}")
    return {"digits": str(decimal.Decimal(1) / 7), "overflow": overflow, "state": STATE.get()}


def module_random(n):
    random.random()
    pause()
    return {"x": random.random(), "y": float(np.random.random())}


def seeded_random(n):
    random.seed(n)
    drawn = []
    for _ in range(10):
        drawn.append(random.random())
        time.sleep(0.01)
    return {f"x{i}": x for i, x in enumerate(drawn)}


def main_thread(n):
    return {
        "thread": threading.current_thread() is threading.main_thread(),
        "threads": threading.active_count(),
        "daemon": multiprocessing.current_process().daemon,
        "arguments": len(sys.argv),
        "stdin": sys.stdin.read(),
    }


def signals(n):
    handlers = {
        number.name: str(signal.getsignal(number)) for number in signal.valid_signals() if number in set(signal.Signals)
    }
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(0.15)
    signal.signal(signal.SIGALRM, before)
    ended = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ended.terminate()
    asked = subprocess.run(["sh", "-c", "kill -TERM $$; echo alive"], check=False, capture_output=True, text=True)
    return {
        **handlers,
        "heard": len(heard),
        "ended": ended.wait(),
        "asked": asked.returncode,
        "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def square(x):
    return x * x


def processes(n):
    found = {}
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found[method] = sum(pool.map(square, range(n, n + 5)))
    with ProcessPoolExecutor(2) as executor:
        found["executor"] = sum(executor.map(square, range(n)))
    process = multiprocessing.Process(target=sys.exit, args=(n,))
    process.start()
    process.join()
    return {**found, "code": process.exitcode}


def joblib_processes(n):
    from joblib import Parallel, delayed

    return {backend: sum(Parallel(2, backend=backend)(delayed(square)(i) for i in range(n))) for backend in BACKENDS}


def forks(n):
    pid = os.fork()
    if pid == 0:
        if n % 3 == 0:
            sys.exit(n)
        if n % 3 == 1:
            raise ValueError("in the fork")
        os._exit(n)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


def threads(n):
    with ThreadPoolExecutor(4) as executor:
        return {"x": sum(executor.map(square, range(n)))}


async def doubled(x):
    await asyncio.sleep(0.01)
    return 2 * x


def asynchronous(n):
    return {"x": asyncio.run(doubled(n)), "y": loop.run_until_complete(doubled(n))}


def database(n):
    connection.execute("INSERT INTO seen VALUES (?)", (n,))
    return {"n_seen": connection.execute("SELECT sum(n) FROM seen").fetchone()[0]}


def folder(n):
    begun_in = os.path.relpath(Path.cwd(), HOME)
    Path("sub").mkdir(exist_ok=True)
    os.chdir("sub" if n % 2 else "/")
    return {"begun_in": begun_in, "umask": os.umask(0o22)}


def noise(n):
    calls.append(n)
    logging.basicConfig(level=logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("twice", stacklevel=1)
        warnings.warn("twice", stacklevel=1)
    return {
        "calls": len(calls),
        "level": logging.getLogger().level,
        "handlers": len(logging.getLogger().handlers),
        "caught": len(caught),
        "filters": str(warnings.filters),
        "locale": str(locale.setlocale(locale.LC_ALL)),
        "recursion": sys.getrecursionlimit(),
    }


def environment(n):
    return {name: value for name, value in os.environ.items() if not name.endswith(("_THREADS", "_"))}


def figure(n):
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.plot(range(n + 2))
    drawn = io.BytesIO()
    plt.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close()
    return {"bytes": len(drawn.getvalue()) > 1000, "backend": matplotlib.get_backend().lower()}
