"""The functions of the sweeps in `test_setup`. Each call of a set-up is noted, with its process."""

import os
import sys
import time
from pathlib import Path

import numpy
import pyarrow


def note(name="calls"):
    with Path(name).open("a") as calls:
        calls.write(f"{os.getpid()}\n")


def array():
    note()
    return numpy.arange(1000.0)


def nested():
    note()
    many = numpy.arange(12.0).reshape(3, 4)
    return {
        "rows": [many, many.T, many[:, ::2], (numpy.array(["2020-01-31"], "M8[D]"), numpy.array(7), numpy.zeros(0))],
        "table": pyarrow.table({"x": [1, 2], "s": ["é", None]}),
        "name": "ü",
        1: None,
    }


def model():
    note()
    return {"array": numpy.ones(3), "made_by": os.getpid(), "handle": sys.stdout}


def nothing():
    note()


def raising():
    note()
    raise ValueError("no data")


def leaving():
    note()
    sys.exit("no licence")


def dying():
    note()
    os._exit(9)


def sleeping():
    note()
    time.sleep(1000)


def hungry():
    note()
    hoard = []
    while True:
        hoard.append(b"x" * 10**7)
        time.sleep(0.002)


def once_killed():
    note()
    if len(Path("calls").read_text().split()) == 1:
        time.sleep(1000)
    return numpy.arange(5)


def large():
    note()
    return numpy.ones(25 * 10**6)  # 200 MB


def forking():
    note()
    if os.fork():
        return numpy.arange(4)
    return numpy.arange(5)


def needy(path):
    return path


def total(n, context):
    time.sleep(0.01)
    return {"total": float(context.sum()), "writable": bool(context.flags.writeable), "pid": os.getpid()}


def parts(n, context):
    rows, times = context["rows"][:3], context["rows"][3]
    return {
        "sums": " ".join(str(row.sum()) for row in rows),
        "shapes": str([row.shape for row in rows]),
        "others": str(times),
        "table": str(context["table"].to_pydict()),
        "name": context["name"],
        "one": str(context[1]),
        "writable": any(row.flags.writeable for row in [*rows, *times]),
        "types": " ".join(type(row).__name__ for row in context["rows"]),
    }


def own(n, context):
    time.sleep(0.01)
    return {"pid": os.getpid(), "made_by": context["made_by"], "sum": float(context["array"].sum())}


def without(n, **anything):
    time.sleep(0.01)
    return {"known": str(anything), "pid": os.getpid()}


def writing(n, context):
    context[0] = 1
    return {"x": n}


def unready(n):
    return {"x": n}


def mortal(n, context):
    if n == 7 and not Path("died").exists():
        note("died")
        os._exit(3)
    time.sleep(0.01)
    return {"total": float(context.sum())}


def filling(n, context):
    time.sleep(0.02)
    return {"total": float(context.sum())}


constant = 3
