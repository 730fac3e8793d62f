"""What EMS asks of an account: groups that are opened and closed, objects of the bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.session import Session

from ems.base.errors import EmsError, Unreachable
from ems.databases.aws import CREDENTIALS, MAY_PASS, SIGN_IN, THROTTLED

CONFIG = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 6})
MISSING = {"404", "NoSuchKey", "NotFound"}
BUSY = THROTTLED | MAY_PASS | {"SlowDown", "Throttling", "500", "502", "503", "504"}
NO_GROUP = "not found"


class _Missing(EmsError):
    """There is no such object."""


class Account:
    """One region, for whoever asks. EmsError with AWS's words; Unreachable if it does not answer."""

    def __init__(self, region: str, bucket: str) -> None:
        self._region, self._bucket = region, bucket
        self._making = threading.Lock()

    @cached_property
    def _session(self) -> Session:
        return Session()

    def _client(self, service: str) -> Any:
        with self._making, self._mapped():
            return self._session.create_client(service, region_name=self._region, config=CONFIG)

    @cached_property
    def _s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def _groups(self) -> Any:
        return self._client("autoscaling")

    # The bucket

    def put(self, key: str, content: bytes | Path) -> None:
        """An object, replaced."""
        with self._mapped():
            if isinstance(content, bytes):
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
                return
            with content.open("rb") as body:
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)

    def has(self, key: str, size: int | None = None) -> bool:
        """Whether there is an object, of this size if one is given."""
        try:
            with self._mapped():
                found = self._s3.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except _Missing:
            return False
        return size is None or int(found) == size

    def get(self, key: str) -> bytes | None:
        """An object's content; None if there is none."""
        try:
            with self._mapped():
                content: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except _Missing:
            return None
        return content

    def remove(self, key: str) -> None:
        """An object, if it is there."""
        with self._mapped():
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    # Groups

    def group(self, name: str) -> dict[str, Any] | None:
        """As the service describes it; None if there is none."""
        with self._mapped():
            found = self._groups.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        return found[0] if found else None

    def resize(self, name: str, size: int) -> None:
        """Have a group want so many instances. One that is gone has none."""
        words = {"MinSize": 0, "MaxSize": size, "DesiredCapacity": size}
        try:
            with self._mapped():
                self._groups.update_auto_scaling_group(AutoScalingGroupName=name, **words)
        except EmsError as error:
            if size or NO_GROUP not in error.message:
                raise

    def ends_at(self, name: str) -> datetime | None:
        """When the service will close a group by itself; None if it never does."""
        with self._mapped():
            found = self._groups.describe_scheduled_actions(AutoScalingGroupName=name)["ScheduledUpdateGroupActions"]
        closing = [each["StartTime"] for each in found if each.get("DesiredCapacity") == 0 == each.get("MaxSize")]
        return min((at for at in closing if at > datetime.now(UTC)), default=None)

    def close_at(self, name: str, action: str, at: datetime) -> None:
        """Have the service close a group at a time."""
        sizes = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
        with self._mapped():
            self._groups.put_scheduled_update_group_action(
                AutoScalingGroupName=name, ScheduledActionName=action, StartTime=at, **sizes
            )

    def failure(self, name: str) -> str:
        """Why a group's newest attempt to start an instance failed; "" if it did not."""
        with self._mapped():
            found = self._groups.describe_scaling_activities(AutoScalingGroupName=name, MaxRecords=1)["Activities"]
        return str(found[0]["StatusMessage"]) if found and found[0]["StatusCode"] == "Failed" else ""

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise self._explained(error) from error
        except CREDENTIALS as error:
            raise EmsError(f"AWS: no credentials were found: {error}", SIGN_IN) from error
        except (BotoCoreError, HTTPClientError) as error:
            raise Unreachable(f"AWS in {self._region} does not answer: {error}", "It may answer later.") from error

    def _explained(self, error: ClientError) -> EmsError:
        found = error.response.get("Error", {})
        code = str(found.get("Code", ""))
        message = f"AWS refuses {error.operation_name} in {self._region}: {code}: {found.get('Message', '')}"
        if code in BUSY:
            return Unreachable(message, "It may answer later.")
        return (_Missing if code in MISSING else EmsError)(message, SIGN_IN)
