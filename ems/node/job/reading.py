"""A reader of all that a job's stack file says of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ems.node.job import rds_file
from ems.node.job.columns import KnownTypes
from ems.node.job.declared import Declared
from ems.node.job.own_files import Output, OwnFiles, shipped
from ems.node.job.results_folder import ResultsFolder, Source
from ems.node.job.results_reader import ResultsReader


def reader_of(results: Path, working: Path, output: Path | None, said: Declared) -> ResultsReader:
    """A reader of the folder `results`, of the files that `said` names below `working`, and of standard output.

    Make it before the job starts: what is there by then under such names is not its results, unless the job changes it.
    ResultsError where a package is missing that reads these files.
    `output`: the file that the job's standard output goes to, if `said.stdout` says how it is read.
    """
    if any(said.type_of(Path(name)) == "rds" for name in said.files):
        rds_file.require()
    before = shipped(said, working, results)

    def sources(types: KnownTypes) -> Sequence[Source]:
        if said.none:
            return []
        own: list[Source] = [OwnFiles(said, working, results, before, types)] if said.files else []
        printed: list[Source] = [Output(said, output, types)] if output and said.stdout else []
        return [ResultsFolder(results, types, said), *own, *printed]

    return ResultsReader(results, said.columns, sources, working)
