"""Rows of runs that do not reach the lab's database: fetched from the mailbox of each run, stored, confirmed there.

Killed between any two steps, nothing is lost and nothing is doubled: what was stored and not confirmed is fetched once
more, and changes nothing then.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ems.base.errors import Busy, DatabaseError, DatabaseUnavailable, Unreachable, UserError
from ems.base.locks import exclusive
from ems.base.private import make_folder
from ems.clusters import Fetched
from ems.clusters.pulled_files import PulledFiles
from ems.clusters.pulled_runs import PulledRuns, offered
from ems.clusters.site import Site
from ems.databases import Experiment, Registration, rounds, rules
from ems.databases.pulled import Pulling
from ems.databases.states import Row, is_held
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from ems.node.environments.ready import CODE
from ems.node.mailbox import URL as MAILBOX
from ems.node.mailbox.files import STORE, digest_of
from ems.node.mailbox.folder import FOLDER, Points, parts_of, row_text
from ems.spool.encoding import SpoolError, decode

FETCH_S = 1.0  # between two looks for rows
WITHIN_S = 10.0  # one call of `sync`, where a run stores faster than it is fetched
MARKS = "pulled"  # below the lab's .ems: a file for each run whose rows were fetched, or are to be
OF_HERE = frozenset({"now", "heartbeat_at", "lease_until", "platform", "points_done", "points_failed", "rows_stored"})
"""What the place knows better of a row."""

Asking = Callable[..., dict[str, Any]]
Ask = Callable[..., dict[str, Any]]
"""Puts the question `exchange` to the place; the answer is empty where nothing of EMS is. Unreachable."""


def is_needed(lab: Lab) -> bool:
    """Whether runs far away cannot store into the lab's database: it is a file of this machine."""
    return lab.database_url.startswith("sqlite:")


def is_used(lab: Lab) -> bool:
    """Whether this folder knows of runs whose rows were fetched, or are to be. Looks at no run: there may be many."""
    return is_needed(lab) and (lab.work_dir / MARKS).is_dir()


def refuse_rounds(lab: Lab, registration: Registration) -> None:
    """UserError for a job whose points its own results decide, if these are only known to the lab's database."""
    if is_needed(lab) and rounds.is_proposing(registration):
        raise UserError(
            f"`job: propose` of {registration.stack} needs a database that its place reaches; {lab.database_url} is a "
            "file of this machine.",
            "Use postgresql://, bigquery:// or dynamodb:// in Pulumi.yaml; `ems database copy` brings the rows along.",
        )


def give_up(lab: Lab, experiment: Experiment) -> None:
    """Its place is gone for good: the run reads `lost`. UserError if it is not kept at a place."""
    if not mark(lab, experiment.id).exists() or not is_needed(lab):
        stack = experiment.registration.stack
        raise UserError(f"The run of {stack} keeps nothing at a place far away.", f"Say only: ems stop {stack}")
    with lab.database() as database:
        assert isinstance(database, Pulling)
        row = database.row(experiment.id)
        if row and is_held(row):
            then = database.at(row["heartbeat_at"])
            then.beat(rules.claim_of(row), 0.0, row["points_done"], row["points_failed"])


def of(lab: Lab, experiment_id: str, site: Site) -> Pull | None:
    """What fetches the rows of an experiment's runs on a machine, where these do not reach the lab's database."""

    def ask(*, quick: bool = False, **question: Any) -> dict[str, Any]:
        run_dir = site.run_dir(experiment_id)  # which takes a connection
        asked = {"ask": "exchange", "run_dir": str(run_dir)} | question
        return site.answered("ems.node.host", run_dir / CODE, asked, quick=quick)

    return Pull(lab, experiment_id, ask) if is_needed(lab) else None


class Pull:
    """Of one experiment, by one process; others of this machine wait for their turn."""

    def __init__(self, lab: Lab, experiment_id: str, ask: Ask) -> None:
        self._lab, self._id, self._ask = lab, experiment_id, ask
        self._told: dict[str, Any] = {}
        self._points = Points()  # that the database has
        self._offered: list[range] | None = None  # that earlier experiments have, and it will have
        self._as_of: object = None  # how all stood when these were known
        self._files = PulledFiles(mark(lab, f"{experiment_id}.files"), lab.store, self._contents)
        self._fetched_at = 0.0

    def own(self) -> None:
        """UserError if the run's folder there belongs to another database."""
        with self._lab.database() as database:
            assert isinstance(database, Pulling)
            self._ask(database=self._owner(database))

    @staticmethod
    def addressed(config: AgentConfig) -> AgentConfig:
        """What its agent is told: it stores into the mailbox."""
        return replace(config, database=MAILBOX, store=f"runs/{config.experiment_id}/{FOLDER}/{STORE}")

    def _contents(self, wanted: Sequence[tuple[str, int]]) -> dict[str, Any]:
        return self._ask(ask="contents", wanted=wanted)

    def fetch(self, *, quick: bool = False, at_once: bool = True) -> Fetched | None:
        """As `sync`; None if that was done a moment ago and is not wanted `at_once`."""
        if not at_once and time.monotonic() - self._fetched_at < FETCH_S:
            return None
        try:
            return self.sync(quick=quick)
        finally:
            self._fetched_at = time.monotonic()

    def sync(self, *, quick: bool = False) -> Fetched:
        """Fetch what is there, and tell what is here; UserError as of `own`, DatabaseUnavailable, Unreachable.

        `quick`: in one go, of which questions are given up after seconds; Busy if somebody else does so.
        """
        file, give_up_at = mark(self._lab, self._id), time.monotonic() + (0 if quick else WITHIN_S)
        make_folder(file.parent)
        with exclusive(file, _busy if quick else lambda: None), self._lab.database() as database:
            assert isinstance(database, Pulling)
            if database.row(self._id) is None:
                return Fetched()
            with ThreadPoolExecutor(1) as ahead:
                return self._all(database, partial(self._asked, self._owner(database), quick), ahead, give_up_at)

    def _all(self, database: Pulling, ask: Asking, ahead: ThreadPoolExecutor, give_up_at: float) -> Fetched:
        """While a parcel is stored, the next one is on its way, and the one before it is confirmed."""
        answer, total = ask({}), Fetched()
        untold: dict[str, Any] = {}
        while True:
            is_late = time.monotonic() > give_up_at
            following = ahead.submit(ask, untold, _last(answer)) if answer["left"] and not is_late else None
            news, brought = self._taken(database, answer, give_up_at)
            total = total.then(brought)
            untold = news if following else _joined(untold, news)
            is_whole = len(news.get("fetched", ())) + len(news.get("damaged", ())) == len(answer["batches"])
            if following and is_whole:
                answer = {**following.result(), "heard": news.get("known", self._told)["heard"]}
                continue
            if not untold or not answer["is_there"]:
                return total
            answer, untold = ask(untold), {}
            if is_late:
                return total

    def _asked(self, owner: Mapping[str, str], quick: bool, news: Mapping[str, Any], after: str = "") -> dict[str, Any]:
        """The answer of the place, and what is known of the question."""
        asked = datetime.now(UTC)
        answer = self._ask(database=owner, quick=quick, after=after, **news)
        if answer and "known" in news:
            self._told = news["known"]
        return {**(answer or _nothing()), "asked": asked, "is_there": bool(answer)}

    def _owner(self, database: Pulling) -> dict[str, str]:
        return {"id": database.identity(), "name": f"{self._lab.database_url} of {self._lab.root} on {platform.node()}"}

    def _taken(self, database: Pulling, answer: Mapping[str, Any], give_up_at: float) -> tuple[dict[str, Any], Fetched]:
        """Store what an answer has; what is to be confirmed and told, and how much it was."""
        runs = PulledRuns(database, self._id, answer)
        self._know(database, answer["heard"])
        fetched: dict[str, str] = {}
        damaged: dict[str, str] = {}
        of_files: dict[str, Any] = {}
        brought = _brought(answer)
        for batch, data in _unpacked(answer):
            try:
                is_stored = self._store(runs, batch["name"], data)
            except SpoolError:
                damaged[batch["name"]] = batch["sha256"]
                continue
            if not is_stored:
                break
            fetched[batch["name"]] = batch["sha256"]
        else:
            if not answer["left"]:
                of_files, more = self._files.taken(runs, answer, give_up_at)
                brought = brought.then(more)
            runs.conclude(has_more=brought.batches_left > 0 or bool(of_files.get("lost")))
        heard = max([answer["heard"], *(parts_of(name)[1] for name in fetched)])
        known = self._known(database, heard, is_sure=not runs.has_changed_points)
        news = {**of_files, **({"fetched": fetched, "damaged": damaged} if fetched or damaged else {})}
        return ({**news, "known": known} if _gist(known) != _gist(self._told) else news), brought

    def _store(self, runs: PulledRuns, name: str, data: bytes) -> bool:
        """False where it stays there: the run is over here, maybe by this very batch, that the database refuses."""
        batch = decode(data)
        try:
            run = runs.store(name, batch)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            runs.fail(error)
            return False
        if run:
            self._points.add(batch, is_late=parts_of(name)[2] < run.attempt, is_due=False)
        return run is not None

    def _know(self, database: Pulling, heard: int) -> None:
        """Which points there are: asked anew if anybody else has changed them, or which of them are due."""
        if self._as_of != self._standing(database, heard):
            self._points = Points.of(database.points(self._id))

    def _standing(self, database: Pulling, heard: int) -> object:
        row = database.row(self._id)
        assert row
        return heard, row["wanted_attempt"], row["rows_stored"], row["attempt"]

    def _known(self, database: Pulling, heard: int, *, is_sure: bool) -> dict[str, Any]:
        """What the place is to know."""
        row = database.row(self._id)
        assert row
        if not is_sure:
            self._points, self._offered = Points.of(database.points(self._id)), None
        self._as_of = self._standing(database, heard)
        columns = self._columns(database, row)
        return {"row": row_text(row), "points": self._told_points(database, row), "heard": heard, "columns": columns}

    def _told_points(self, database: Pulling, row: Row) -> str:
        """With those that are copied once a run begins."""
        if self._offered is None:
            self._offered = list(offered(database, row))
        if not self._offered:
            return self._points.text()
        told = Points.of(self._points.ranges())
        for points in self._offered:
            told.put(points, "stored")
        return told.text()

    def _columns(self, database: Pulling, row: Row) -> dict[str, Any]:
        """What each column is by the rows that are here."""
        first = next(iter(database.results(self._id, chunk_rows=1)), None) if row["rows_stored"] else None
        return {column.name: [column.type, column.type] for column in first.columns} if first else {}


def mark(lab: Lab, experiment_id: str) -> Path:
    """A file here that says so of an experiment."""
    return lab.work_dir / MARKS / experiment_id


def _busy() -> None:
    raise Busy("Another command fetches these rows.", "Repeat the command.")


def _gist(known: Mapping[str, Any]) -> object:
    """What it says that the place does not know better: where that is as before, it need not be told."""
    row = known.get("row", {})
    return known.get("heard"), {name: row[name] for name in row if name not in OF_HERE}


def _nothing() -> dict[str, Any]:
    """The answer of a place where nothing is left of a run."""
    counts = ("points_done", "points_failed", "rows_stored", "heard", "left", "left_bytes", "files_left")
    nothing = {"runs": [], "batches": [], "content": b"", "files": [], "lost": []}
    return {**dict.fromkeys(counts, 0), **nothing, "now": datetime.now(UTC).isoformat()}


def _unpacked(answer: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], bytes]]:
    """The batches of an answer with their bytes. Unreachable if they are not as they were there."""
    found, start = [], 0
    for batch in answer["batches"]:
        data = answer.get("content", b"")[start : start + batch["size"]]
        start += batch["size"]
        if digest_of(data) != batch["sha256"]:
            raise Unreachable("Rows were damaged on their way here.", "Nothing is lost: repeat the command.")
        found.append((batch, data))
    return found


def _joined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """All news of two."""
    both = {key: {**first.get(key, {}), **then.get(key, {})} for key in ("fetched", "damaged", "files", "lost")}
    return {**first, **then, **{key: found for key, found in both.items() if found}}


def _last(answer: Mapping[str, Any]) -> str:
    """The name of the last batch of an answer; "" if it has none."""
    return answer["batches"][-1]["name"] if answer["batches"] else ""


def _brought(answer: Mapping[str, Any]) -> Fetched:
    size = sum(batch["size"] for batch in answer["batches"])
    return Fetched(len(answer["batches"]), size, answer["left"], answer["left_bytes"])
