"""The lab's database in DynamoDB: `dynamodb://REGION/PREFIX`, the tables `PREFIX-registry` and `PREFIX-results`.

Credentials and endpoint come by AWS's own ways: AWS_PROFILE, ~/.aws, a role of the machine; AWS_ENDPOINT_URL_DYNAMODB
for a server of one's own. The service has no clock: this machine's clock is taken, corrected where the times in the
service's answers prove it wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

from ems.databases.dynamodb.service import Service
from ems.databases.dynamodb.setup import DynamodbSetup
from ems.errors import UserError

URL = re.compile(r"dynamodb://(?P<region>[a-z0-9-]+)/(?P<prefix>[A-Za-z0-9_.-]{1,200})/?")
ALLOWED = (
    "Allowed: dynamodb://REGION/PREFIX, as dynamodb://eu-central-1/mylab; letters, digits, `_`, `-`, `.` in PREFIX."
)


def connect(url: str, root: Path) -> DynamodbDatabase:  # noqa: ARG001  (only a file needs the lab's folder)
    parts = URL.fullmatch(url)
    if not parts:
        shown = "ems:database" if "@" in url else f"ems:database is {url!r}, which"  # it may hold a secret
        raise UserError(f"{shown} is no DynamoDB URL. Keys belong into ~/.aws, never into a URL.", ALLOWED)
    return DynamodbDatabase(Service(parts["region"], parts["prefix"]))


class DynamodbDatabase(DynamodbSetup):
    def close(self) -> None:
        self._service.close()
