"""Rows of runs that do not reach the lab's database: fetched from the mailbox of each run, stored, confirmed there.

Killed between any two steps, nothing is lost and nothing is doubled: what was stored and not confirmed is fetched once
more, and changes nothing then.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ems.base.errors import Busy, DatabaseError, DatabaseUnavailable, EmsError, Unreachable, UserError
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
from ems.node.mailbox.exchange import MOST_BYTES
from ems.node.mailbox.files import STORE, digest_of
from ems.node.mailbox.folder import FOLDER, Points, parts_of, row_text
from ems.spool.encoding import SpoolError, decode

HOST = "ems.node.host"  # what answers there
CODES = 3  # of so many runs, one at least is whole
FETCH_S = 1.0  # between two looks for rows
WITHIN_S = 10.0  # one call of `sync`, where a run stores faster than it is fetched
MARKS = "pulled"  # below the lab's .ems: a file for each run whose rows were fetched, or are to be
OF_HERE = frozenset({"now", "heartbeat_at", "lease_until", "platform", "points_done", "points_failed", "rows_stored"})
"""What the place knows better of a row."""

Asking = Callable[..., dict[str, Any]]
Talk = Generator[dict[str, Any], dict[str, Any], None]
Asked = Mapping[Talk, tuple["Pull", dict[str, Any]]]


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
    return Pull(lab, experiment_id, site) if is_needed(lab) else None


class Pull:
    """Of one experiment, by one process; others of this machine wait for their turn."""

    def __init__(self, lab: Lab, experiment_id: str, site: Site) -> None:
        """`site`: where its runs are."""
        self._lab, self._id, self.site = lab, experiment_id, site
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

    @property
    def code(self) -> PurePosixPath:
        """EMS's own, there; this takes a connection."""
        return self.site.run_dir(self._id) / CODE

    def worded(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """A question of this experiment's mailbox."""
        return {"ask": "exchange", "run_dir": str(self.site.run_dir(self._id)), **question}

    def _ask(self, **question: Any) -> dict[str, Any]:
        """The answer of the place, empty where nothing of EMS is. Unreachable."""
        return self.site.answered(HOST, self.code, self.worded(question))

    def _contents(self, wanted: Sequence[tuple[str, int]]) -> dict[str, Any]:
        return self._ask(ask="contents", wanted=wanted)

    def fetch(self, *, at_once: bool = True) -> Fetched | None:
        """As `sync`; None if that was done a moment ago and is not wanted `at_once`."""
        if not at_once and time.monotonic() - self._fetched_at < FETCH_S:
            return None
        try:
            return self.sync()
        finally:
            self._fetched_at = time.monotonic()

    def sync(self) -> Fetched:
        """Fetch what is there, and tell what is here; UserError as of `own`, DatabaseUnavailable, Unreachable."""
        give_up_at = time.monotonic() + WITHIN_S
        with self._turn(lambda: None) as database, ThreadPoolExecutor(1) as ahead:
            if database.row(self._id) is None:
                return Fetched()
            return self._all(database, partial(self._asked, self._owner(database)), ahead, give_up_at)

    def glance(self, most_bytes: int, give_up_at: float) -> Talk:
        """The questions of a quick look, each of which is sent its answer: what there is, and what came, to confirm it.

        What jobs left is fetched before `give_up_at` only. Busy if somebody else fetches; errors as of `sync`.
        """
        with self._turn(_busy) as database:
            if database.row(self._id) is None:
                return
            owner, asked = self._owner(database), datetime.now(UTC)
            found = yield {"database": owner, "most_bytes": most_bytes}
            news, _ = self._taken(database, {**(found or _nothing()), "asked": asked}, give_up_at, is_quick=True)
            if news and found:
                yield {"database": owner, "most_bytes": 0, **news}
                self._told = news.get("known", self._told)

    @contextmanager
    def _turn(self, waiting: Callable[[], None]) -> Iterator[Pulling]:
        """The database, while no other process of this machine fetches these rows; as of `locks.exclusive`."""
        file = mark(self._lab, self._id)
        make_folder(file.parent)
        with exclusive(file, waiting), self._lab.database() as database:
            assert isinstance(database, Pulling)
            yield database

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

    def _asked(self, owner: Mapping[str, str], news: Mapping[str, Any], after: str = "") -> dict[str, Any]:
        """The answer of the place, and what is known of the question."""
        asked = datetime.now(UTC)
        answer = self._ask(database=owner, after=after, **news)
        if answer and "known" in news:
            self._told = news["known"]
        return {**(answer or _nothing()), "asked": asked, "is_there": bool(answer)}

    def _owner(self, database: Pulling) -> dict[str, str]:
        return {"id": database.identity(), "name": f"{self._lab.database_url} of {self._lab.root} on {platform.node()}"}

    def _taken(
        self, database: Pulling, answer: Mapping[str, Any], give_up_at: float, *, is_quick: bool = False
    ) -> tuple[dict[str, Any], Fetched]:
        """Store what an answer has; what is to be confirmed and told, and how much it was.

        `is_quick`: what takes another question is left there once `give_up_at` has passed.
        """
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
            files_wait = bool(answer["files"]) and is_quick and time.monotonic() > give_up_at
            if not (answer["left"] or files_wait):
                of_files, more = self._files.taken(runs, answer, give_up_at)
                brought = brought.then(more)
            runs.conclude(has_more=brought.batches_left > 0 or files_wait or bool(of_files.get("lost")))
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


def glance(pulls: Sequence[Pull], give_up_at: float) -> None:
    """Two questions to each machine at most, for all of these: one looks at each of them, one confirms what came.

    No error: what is not to be had at once stays there.
    """
    for site in {each.site: None for each in pulls}:
        members = [each for each in pulls if each.site is site]
        with suppress(EmsError), ExitStack() as talks:
            begun: dict[Talk, tuple[Pull, dict[str, Any]]] = {}
            for each in members:
                talk = talks.enter_context(closing(each.glance(MOST_BYTES // len(members), give_up_at)))
                with suppress(EmsError, StopIteration):
                    begun[talk] = each, next(talk)
            asked: Asked = begun
            while asked:
                asked = _continued(site, asked)


def _continued(
    site: Site, asked: Mapping[Talk, tuple[Pull, dict[str, Any]]]
) -> dict[Talk, tuple[Pull, dict[str, Any]]]:
    """What is asked next, where there is more to ask, once each has its answer."""
    questions, following = [each.worded(question) for each, question in asked.values()], {}
    codes = [each.code for each, _ in asked.values()][:CODES]
    answers = next(filter(None, (site.answered_each(HOST, code, questions) for code in codes)), [])
    for (talk, (each, _)), answer in zip(asked.items(), answers, strict=False):
        with suppress(EmsError, StopIteration):
            if not isinstance(answer, EmsError):
                following[talk] = each, talk.send(answer)
    return following


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
