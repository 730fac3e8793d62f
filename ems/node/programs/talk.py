"""A program that stays: points go to its standard input, a line of JSON each; answers come from its standard output."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ems.base.messages import show
from ems.node.programs.program import End, Program
from ems.node.programs.site import Site
from ems.spool.batch import Value

CLOSE_S = 2.0
BLOCK = 1 << 16
MOST_BYTES = 64 * 10**6  # of a line


class Talk:
    """The program of one worker, started when it is needed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._program: Program | None = None
        self._to_write, self._unfinished = bytearray(), bytearray()
        self.ahead = 2  # how many points are asked before one is answered

    def ask(self, point: int, parameters: Mapping[str, Value]) -> None:
        """Send a point, as soon as the program reads it."""
        line = json.dumps({"point": point, **self._site.told(parameters)}, ensure_ascii=False)
        self._to_write += line.encode() + b"\n"

    def send(self) -> None:
        """Write what the program's pipe has room for now."""
        if self._program and self._to_write:
            self._write()

    def begin_point(self) -> None:
        """The time of the point at work begins now."""
        if self._program:
            self._program.begin()

    def hear(self) -> list[bytes] | End:
        """The next lines, [] if there is none within a moment; or how the program ended. NotStarted if it cannot."""
        program = self._program = self._program or self._start()
        for file, _ in self._poll.poll(1000 * program.tick_s):
            if file == self._stdin:
                self._write()
            elif not self._read():
                return self._ended(program)
        if program.check():
            return self._ended(program)
        self._listen()
        return self._lines()

    def _start(self) -> Program:
        with self._site.stderr.open("wb") as stderr:
            streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
            site = self._site
            program = Program(site.words({}), site.work, site.variables({}), site.limits, **streams)
        assert program.process.stdin and program.process.stdout
        self._stdin, self._stdout = program.process.stdin.fileno(), program.process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._is_writing = False
        self._unfinished.clear()
        self._listen()
        return program

    def _listen(self) -> None:
        """Wait for room in the pipe only while there is something to write."""
        wanted = bool(self._to_write)
        if wanted and not self._is_writing:
            self._poll.register(self._stdin, select.POLLOUT)
        elif self._is_writing and not wanted:
            self._poll.unregister(self._stdin)
        self._is_writing = wanted

    def _write(self) -> None:
        with suppress(BlockingIOError):
            try:
                del self._to_write[: os.write(self._stdin, self._to_write[:BLOCK])]
            except BrokenPipeError:  # it reads no more: its end, or its answers, will say why
                self._to_write.clear()

    def _read(self) -> bool:
        block = os.read(self._stdout, BLOCK)
        self._unfinished += block
        return bool(block)

    def _lines(self) -> list[bytes]:
        *lines, rest = self._unfinished.split(b"\n")
        if lines:
            self._unfinished = bytearray(rest)
        return [bytes(line) for line in lines] or ([bytes(rest)] if len(rest) > MOST_BYTES else [])

    def _ended(self, program: Program) -> End:
        """It has closed its output, or was ended."""
        with suppress(subprocess.TimeoutExpired):
            program.process.wait(CLOSE_S)
        return self._forget(program)

    def _forget(self, program: Program) -> End:
        end = program.end()
        for stream in (program.process.stdin, program.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self._program = None
        self._to_write.clear()
        name = f"program-{program.process.pid}"
        self._site.clear(name, [], has_rows=True)
        self._site.leave_outputs(name)
        return end

    def stop(self) -> None:
        """End the program at once; what it was asked is forgotten."""
        if self._program:
            self._forget(self._program)
        self._to_write.clear()

    def close(self) -> None:
        """Have it end by itself, as nothing more comes from its input; it has a moment for that."""
        if not self._program:
            return
        with suppress(BrokenPipeError):
            self._program.process.stdin.close()
        self._ended(self._program)


def answer_of(line: bytes) -> tuple[int, Any, str]:
    """The point that a line is about, its rows, and its error, "" for none. ValueError: the line is not an answer."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("is not an object")
    point = found.pop("point", None)
    if type(point) is not int:
        raise ValueError("lacks the `point` that it answers")
    if isinstance(found.get("error"), str):
        return point, None, found["error"] or "it gave an error without any text"
    rows = found.get("rows")
    if isinstance(rows, list):
        odd = next((row for row in rows if not isinstance(row, dict)), None)
        return point, rows, "" if odd is None else f"The answer's `rows` have {show(odd)}: allowed are objects."
    return point, [found] if found else [], ""
