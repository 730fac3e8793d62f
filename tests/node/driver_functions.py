"""The functions of the sweeps of the driver's tests: well-behaved ones, and those that fail in all ways."""

import os
import pathlib
import sys
import time


def mixed(n, rate):
    if n % 5 == 0:
        return None
    if n % 5 == 1:
        return [{"x": n * rate, "k": k} for k in range(3)]
    if n % 5 == 2:
        import pandas

        return pandas.DataFrame({"x": [n * rate, float("nan")], "k": [n, 2**60], "t": ["a", None]})
    if n % 5 == 3:
        import numpy

        return {"x": numpy.float64(n * rate), "ok": numpy.bool_(n % 2), "v": numpy.arange(3) / 7}
    return {"x": n * rate, "k": n, "t": f"é{n}"}


def raising(n):
    if n % 10 == 3:
        raise ValueError(f"no {n}")
    if n == 7:
        sys.exit("leaving")
    if n == 8:
        return {"x": [1, 2]}
    if n == 9:
        return {"N": 1}
    return {"x": n}


def flaky(n):
    tries = pathlib.Path(f"try-{n}")
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if len(tries.read_text()) < 3:
        raise RuntimeError("not yet")
    return {"tries": len(tries.read_text())}


def deadly(n):
    if n == 137:
        os._exit(7)
    return {"x": n}


def hanging(n):
    if n == 11:
        time.sleep(1000)
    return {"x": n}


def holding(n):
    if n == 3:
        sum(range(10**14))  # one call that never releases the interpreter
    return {"x": n}


def hungry(n):
    hoard = []
    while n == 5:
        hoard.append(b"x" * 10**7)
        time.sleep(0.002)
    return {"x": n}


def slow(n):
    time.sleep(0.02)
    return {"x": n}


def endless(n):
    time.sleep(1000)


def typed(n):
    return {"x": n if n < 40 else n + 0.5 if n < 80 else str(n)} if n else {"x": 0}


def cheap(n, m=0):
    return {"x": n * 0.5, "k": n, "m2": m * m}


def about(n):
    return {"threads": os.environ["OPENBLAS_NUM_THREADS"], "cwd": str(pathlib.Path.cwd()), "hash": hash("x")}


constant = 3
