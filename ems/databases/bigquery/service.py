"""BigQuery's own client, as EMS uses it: one dataset, patience with quotas, and errors that name what to do."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth import exceptions as auth_errors
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud import bigquery
from google.cloud.bigquery import ArrayQueryParameter, LoadJobConfig, QueryJobConfig, ScalarQueryParameter
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.cloud.bigquery.table import RowIterator
from requests import exceptions as http_errors

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseError, DatabaseUnavailable, NoTables, UserError

EMULATOR = "BIGQUERY_EMULATOR_HOST"  # by this variable Google's client finds an emulator
LABELS = {"application": "ems"}
REQUEST_S = 120.0  # of one HTTP request
FIRST_LOOK_S, LONGEST_LOOK_S = 0.1, 2.0  # pauses between looks at a job
PATIENCE_S = 3.0  # after which a person is told that a call is tried again
LONGEST_PAUSE_S = 10.0  # before a call is tried again
CONTENDED = re.compile(r"(concurrent|another|different) (update|transaction)|serialize access|conflict", re.I)
OTHERS_ADDED = re.compile(r"does not match Table .*Cannot remove field", re.S)
LOST_JOB = re.compile(r"(Not found|Already Exists): Job")  # whose answer was lost: all that EMS runs can be run again
BUSY = frozenset(
    {"rateLimitExceeded", "jobRateLimitExceeded", "quotaExceeded", "backendError", "jobBackendError"}
    | {"internalError", "jobInternalError", "badGateway", "tableUnavailable", "resourcesExceeded"}
)
AWAY = (
    ConnectionError,
    exceptions.RetryError,
    exceptions.ServerError,
    exceptions.TooManyRequests,
    http_errors.ConnectionError,
    http_errors.Timeout,
    http_errors.ChunkedEncodingError,
    auth_errors.TransportError,
)
ROLES = (
    "It takes roles/bigquery.dataEditor on the dataset (to read alone: dataViewer) and roles/bigquery.jobUser on the "
    "project: `ems database init --print` shows how they are given, `ems database check` what you may do."
)
ALLOWED = "Allowed: bigquery://PROJECT/DATASET, with ?location=EU (or another region) for a dataset that is to be made."

Parameters = Sequence[ScalarQueryParameter | ArrayQueryParameter]
LoadFile = Callable[[int], bytes]
"""Writes the rows of a batch of this number as Parquet."""
T = TypeVar("T")

log = logging.getLogger(__name__)


class Contended(Exception):
    """Somebody else changed at the same time what a call has read."""


@dataclass(frozen=True)
class Address:
    """Where the tables are. `location`: of jobs, and of a dataset that is to be made; None: Google's choice."""

    project: str
    dataset: str
    location: str | None = None

    @classmethod
    def of(cls, url: str) -> Address:
        """UserError if `url` is none."""
        parts = urlsplit(url)
        dataset = parts.path.removeprefix("/")
        options = parse_qs(parts.query, keep_blank_values=True)
        location = options.pop("location", [None])[0]
        if not re.fullmatch(r"[a-z0-9.:-]+", parts.netloc) or not re.fullmatch(r"\w{1,1024}", dataset, re.ASCII):
            raise UserError(f"ems:database is {url!r}: that names no project and dataset.", ALLOWED)
        if options or parts.fragment or location == "":
            raise UserError(f"ems:database is {url!r}: it has options that mean nothing here.", ALLOWED)
        return cls(parts.netloc, dataset, location)


class Service:
    """`wait_s`: how long one call waits for a service that is busy or away, before it is called unavailable."""

    def __init__(self, address: Address, wait_s: float, first_pause_s: float) -> None:
        self.address = address
        self.name = f"bigquery://{address.project}/{address.dataset}"
        self._wait_s, self._first_pause_s = wait_s, first_pause_s
        # Of one request, so that `patiently` has its time for several.
        self._retry: Retry = DEFAULT_RETRY.with_delay(initial=first_pause_s).with_timeout(wait_s / 4)
        self._client: bigquery.Client | None = None

    @property
    def client(self) -> bigquery.Client:
        """Google's client, made when it is first needed; GoogleAuthError without credentials."""
        if self._client is None:
            self._client = bigquery.Client(
                project=self.address.project, credentials=_credentials(), location=self.address.location
            )
        return self._client

    def close(self) -> None:
        """Close the client, if it was made."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]

    def table(self, name: str) -> bigquery.TableReference:
        """The reference to a table of the dataset, whether it is there or not."""
        return bigquery.DatasetReference(self.address.project, self.address.dataset).table(name)

    # Calls

    def query(self, sql: str, parameters: Parameters = (), page_rows: int | None = None) -> RowIterator:
        """Run a statement or script; its rows (a script's: of its last query), which stay as they are now."""
        config = QueryJobConfig(
            default_dataset=f"{self.address.project}.{self.address.dataset}",
            query_parameters=list(parameters),
            labels=LABELS,
            use_legacy_sql=False,
        )
        return self.patiently(
            lambda: self.client.query_and_wait(
                sql,
                job_config=config,
                api_timeout=REQUEST_S,
                retry=self._retry,
                job_retry=None,  # type: ignore[arg-type]  # `patiently` does that
                page_size=page_rows,
            )
        )

    def describe(self, name: str) -> bigquery.Table | None:
        """The table's schema and the like, which costs nothing; None if there is none."""
        if not name:  # of a job without rows
            return None
        try:
            return self.client.get_table(self.table(name), retry=self._retry, timeout=REQUEST_S)
        except exceptions.NotFound:
            return None

    def make_table(self, table: bigquery.Table) -> None:
        """Make a table, unless it is there."""
        self.client.create_table(table, exists_ok=True, retry=self._retry, timeout=REQUEST_S)

    def change_columns(self, table: bigquery.Table) -> None:
        """Contended if the table was changed since it was described."""
        try:
            self.client.update_table(table, ["schema"], retry=self._retry, timeout=REQUEST_S)
        except exceptions.PreconditionFailed as error:
            raise Contended(str(error)) from error
        except exceptions.BadRequest as error:
            if OTHERS_ADDED.search(str(error)):
                raise Contended(str(error)) from error
            raise

    def make_dataset(self) -> None:
        """Make the dataset, unless it is there."""
        dataset = bigquery.Dataset(f"{self.address.project}.{self.address.dataset}")
        dataset.labels = LABELS
        if self.address.location:
            dataset.location = self.address.location
        try:
            self.client.get_dataset(dataset.reference, retry=self._retry, timeout=REQUEST_S)
        except exceptions.NotFound:
            self.client.create_dataset(dataset, exists_ok=True, retry=self._retry, timeout=REQUEST_S)

    def permissions(self, name: str, asked: Sequence[str]) -> set[str]:
        """Those of `asked` that this user has on a table."""
        answer = self.client.test_iam_permissions(self.table(name), asked, retry=self._retry, timeout=REQUEST_S)
        return set(answer.get("permissions", ()))

    def load(
        self, name: str, schema: Sequence[bigquery.SchemaField], new_number: Callable[[], int], file: LoadFile
    ) -> int:
        """Append a batch of rows by one load job; the batch's number.

        A try whose answer is lost may have loaded them. So each has a number of its own, and they count by that alone.
        """
        config = LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=schema,
            write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
            column_name_character_map="STRICT",
            labels=LABELS,
        )

        def loaded() -> int:
            number = new_number()
            parquet = file(number)
            job = self.client.load_table_from_file(
                BytesIO(parquet), self.table(name), size=len(parquet), job_config=config, timeout=REQUEST_S
            )
            self._wait(job)
            return number

        return self.patiently(loaded)

    def _wait(self, job: bigquery.LoadJob) -> None:
        """Until it has ended; its error is raised. Google's client looks at random times, a second apart and more."""
        pauses = Backoff(FIRST_LOOK_S, LONGEST_LOOK_S, growth=1.5)
        while not job.done(retry=self._retry):
            pauses.wait()
        job.result(retry=self._retry)

    def patiently(self, call: Callable[[], T]) -> T:
        """What others hinder, or a busy service fails, is tried again, at growing and random intervals."""
        began = time.monotonic()
        until, is_told = began + self._wait_s, False
        pauses = Backoff(self._first_pause_s, LONGEST_PAUSE_S, growth=1.6, spread=0.5)
        while True:
            try:
                return call()
            except (*AWAY, Contended, exceptions.GoogleAPICallError) as error:
                if not _may_pass(error) or time.monotonic() > until:
                    raise
                if not is_told and not isinstance(error, Contended) and time.monotonic() > began + PATIENCE_S:
                    log.warning("%s does not answer yet, trying on: %s", self.name, _text(error))
                    is_told = True
            pauses.wait()

    # Errors

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Google's errors as those of EMS."""
        try:
            yield
        except auth_errors.GoogleAuthError as error:
            raise self._explained_login(error) from error
        except (*AWAY, exceptions.GoogleAPICallError, http_errors.RequestException) as error:
            raise self._explained(error) from error

    def _explained_login(self, error: auth_errors.GoogleAuthError) -> DatabaseError:
        if isinstance(error, auth_errors.TransportError):
            return self._unavailable(error)
        return DatabaseError(
            f"Google does not know who you are ({_text(error)}).",
            "Log in: gcloud auth application-default login; or name a key file in GOOGLE_APPLICATION_CREDENTIALS.",
        )

    def _explained(self, error: Exception) -> DatabaseError:
        if _may_pass(error):
            return self._unavailable(error)
        if isinstance(error, exceptions.NotFound):
            return self.no_tables()
        if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
            return DatabaseError(f"The lab's database {self.name} refuses you ({_text(error)}).", ROLES)
        return DatabaseError(
            f"The lab's database {self.name} refused a call ({_text(error)}).",
            "If this is not a fault of the service, report it with: ems doctor",
        )

    def _unavailable(self, error: Exception) -> DatabaseUnavailable:
        while isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
            error = error.cause
        message = f"The lab's database {self.name} does not answer ({_text(error)})."
        return DatabaseUnavailable(message, "Nothing was changed: try again.")

    def no_tables(self) -> DatabaseError:
        """The error for a dataset that lacks EMS's tables."""
        return NoTables(f"The lab's database has no tables yet: {self.name}.", "Make them: ems up lab")


def _credentials() -> Credentials | None:
    """None: those that Google's client finds by itself (application-default credentials)."""
    return AnonymousCredentials() if os.environ.get(EMULATOR) else None  # type: ignore[no-untyped-call]


def _may_pass(error: Exception) -> bool:
    if isinstance(error, (*AWAY, Contended)):
        return True
    if isinstance(error, exceptions.BadRequest) and CONTENDED.search(str(error)):
        return True
    if isinstance(error, exceptions.NotFound | exceptions.Conflict) and LOST_JOB.search(str(error)):
        return True
    details: Sequence[Mapping[str, Any]] = getattr(error, "errors", ())
    return any(detail.get("reason") in BUSY for detail in details)


def _text(error: object) -> str:
    details: Sequence[Mapping[str, Any]] = getattr(error, "errors", ())
    said = details[0].get("message") if details else None
    return " ".join(str(said or error).split())[:500]
