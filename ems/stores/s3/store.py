"""A store in a bucket of Amazon S3, or of a service like it: `s3://BUCKET/PREFIX`.

Credentials, region and endpoint come by AWS's own ways: AWS_PROFILE, ~/.aws, a role of the machine; AWS_ENDPOINT_URL_S3
for another service. An upload in parts that was cut off is not seen by anybody; what it left is removed a day later, by
the next upload of the same content, or by a rule of the bucket (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.session import Session

from ems.base.errors import StoreError, StoreUnavailable
from ems.databases.aws import CREDENTIALS, MAY_PASS, SIGN_IN, SIGNATURE, THROTTLED
from ems.stores import KEPT, Content, Source, Store, bucket_of, key
from ems.stores.source import BLOCK

PART_BYTES, MOST_PARTS = 16 << 20, 9_000
SMALL_TRIES = 4  # of one call, by the library itself
CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": SMALL_TRIES},
    max_pool_connections=16,
)
ABANDONED = timedelta(days=1)
MISSING = {"404", "NoSuchKey", "NotFound"}
DENIED = SIGNATURE | {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "Forbidden"}
BUSY = THROTTLED | MAY_PASS | {"SlowDown", "429", "500", "502", "503", "504", "InternalError", "RequestTimeTooSkewed"}
LOST_UPLOAD = {"NoSuchUpload"}


def connect(url: str, root: Path) -> S3Store:  # noqa: ARG001  (only a folder needs the lab's)
    """The store at `url`; UserError if that names no bucket."""
    return S3Store(url, *bucket_of(url))


class S3Store(Store):
    """Objects `PREFIX/ab/ab12…`."""

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        super().__init__(url)
        self._bucket, self._prefix = bucket, prefix
        self._making = threading.Lock()
        self._made: Any = None

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                with self._mapped():
                    self._made = Session().create_client("s3", config=CONFIG)
            return self._made

    def make_ready(self) -> None:
        self._call("put_object", KEPT, Body=json.dumps({"version": 1}).encode())
        self._call("get_object", KEPT)["Body"].close()

    def require(self) -> None:
        if self._size(KEPT) is None:
            raise self.unmarked()

    def put(self, source: Source) -> Content:
        content = source.content()
        name = key(content.digest)
        if self._size(name) == content.size:
            return content
        source.seek(0)
        if content.size <= PART_BYTES:
            self._call("put_object", name, Body=source.read(PART_BYTES + 1))
        else:
            self._put_parts(source, name, content.size)
        return content

    def _size(self, name: str) -> int | None:
        """Of an object; None if there is none, or that is not told."""
        try:
            return int(self._call("head_object", name)["ContentLength"])
        except _Missing:
            return None

    def _put_parts(self, source: Source, name: str, size: int) -> None:
        self._abort_abandoned(name)
        upload = self._call("create_multipart_upload", name)["UploadId"]
        try:
            parts = list(self._parts(source, name, upload, max(PART_BYTES, -(-size // MOST_PARTS))))
            self._call("complete_multipart_upload", name, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(StoreError):
                self._call("abort_multipart_upload", name, UploadId=upload)
            raise

    def _parts(self, source: Source, name: str, upload: str, bytes_each: int) -> Iterator[dict[str, Any]]:
        number = 1
        while part := source.read(bytes_each):
            sent = self._call("upload_part", name, UploadId=upload, PartNumber=number, Body=part)
            yield {"PartNumber": number, **{name: sent[name] for name in sent if name == "ETag" or "Checksum" in name}}
            number += 1

    def _abort_abandoned(self, name: str) -> None:
        """Of this content, what killed processes had begun; where that may not be asked, the bucket's rule does it."""
        with suppress(StoreError):
            found = self._listed(name)
            for each in found:
                if datetime.now(UTC) - each["Initiated"] > ABANDONED:
                    self._call("abort_multipart_upload", name, UploadId=each["UploadId"])

    def _listed(self, name: str) -> list[dict[str, Any]]:
        with self._mapped():
            asked = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix + name)
            return list(asked.get("Uploads", []))

    def read(self, digest: str, start: int = 0) -> Iterator[bytes]:
        try:
            asked = {"Range": f"bytes={start}-"} if start else {}
            body = self._call("get_object", key(digest), **asked)["Body"]
        except _Missing as error:
            raise StoreError(f"{self.name} does not have {digest}.", "Was something removed there?") from error
        with self._mapped(), body:
            yield from body.iter_chunks(BLOCK)

    def _call(self, action: str, name: str, **parameters: Any) -> Any:
        client = self._client
        with self._mapped():
            return getattr(client, action)(Bucket=self._bucket, Key=self._prefix + name, **parameters)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._explained(error) from error
        except CREDENTIALS as error:
            raise StoreError(f"{self.name}: no credentials were found: {error}", SIGN_IN) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise StoreUnavailable(f"{self.name} does not answer: {error}", "It is tried again.") from error

    def _explained(self, error: ClientError) -> StoreError:
        said = error.response.get("Error", {})
        code, status = str(said.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        told = f"{code}: {said.get('Message', '')}".strip(": ")
        if code == "NoSuchBucket":
            return StoreError(
                f"{self.name}: the bucket {self._bucket!r} is not there.", f"aws s3 mb s3://{self._bucket}"
            )
        if code in MISSING:
            return _Missing(f"{self.name} does not have it ({told}).")
        if code in BUSY or code in LOST_UPLOAD or status >= 500 or status == 429:
            return StoreUnavailable(f"{self.name} does not answer now ({told}).", "It is tried again.")
        if code in DENIED or status == 403:
            hint = f"It needs s3:GetObject, s3:PutObject and s3:AbortMultipartUpload there. {SIGN_IN}"
            return StoreError(f"{self.name} refuses: {told}.", hint)
        return StoreError(f"{self.name} refuses a call: {told}.", "If that is not the bucket's fault, report it.")


class _Missing(StoreError):
    """There is no such object."""
