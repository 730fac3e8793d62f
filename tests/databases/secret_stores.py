"""What tests of passwords in secret versions share: both stores at work, and a machine that may read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import trustme
from botocore.config import Config

from ems.databases.postgresql import secrets_aws, secrets_google
from tests.databases.secret_servers import ARN, GOOGLE, Stores, serving, version_id

__all__ = ["ARN", "FIRST", "GOOGLE", "LATEST", "PASSWORD", "Stores", "version_id"]

PASSWORD = "tr0ub4dor&3 pässword"
LATEST = {"google": f"{GOOGLE}latest", "aws": ARN}
FIRST = {"google": f"{GOOGLE}1", "aws": f"{ARN}:::{version_id(1)}"}


@pytest.fixture
def stores(tmp_path_factory, monkeypatch) -> Iterator[Stores]:
    """Both stores, found and believed as on a machine of the lab: a service account's key, a profile of AWS."""
    folder = tmp_path_factory.mktemp("login")
    with serving() as stores:
        key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()
        account = {"type": "service_account", "private_key": key, "client_email": "lab@example.org", "client_id": "1"}
        about = {"project_id": "lab", "private_key_id": "1", "token_uri": f"{stores.url}/token"}
        (folder / "account.json").write_text(json.dumps({**account, **about}))
        (folder / "credentials").write_text("[lab]\naws_access_key_id = lab\naws_secret_access_key = word\n")
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "CLOUDSDK_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", f"{stores.url}/")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", stores.url)
        monkeypatch.setenv("HTTPS_PROXY", stores.url)  # refuses: nothing leaves this machine
        yield stores


@pytest.fixture(params=["google", "aws"])
def store(request) -> str:
    return str(request.param)


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(secrets_google, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(secrets_aws, "CONFIG", Config(read_timeout=0.3, retries={"total_max_attempts": 2}))
