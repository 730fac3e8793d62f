"""Each database with 64 writers, and with a million rows; `make drill` alone runs what takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.databases.cases import Address
from tests.databases.volume_contract import VolumeContract


class TestSqlite(VolumeContract):
    @pytest.fixture
    def address(self, tmp_path) -> Address:
        return "sqlite:///ems.db", tmp_path


class TestPostgresql(VolumeContract):
    @pytest.fixture
    def address(self, postgresql_url) -> Address:
        return postgresql_url, Path()


@pytest.mark.drill
@pytest.mark.timeout(3600)
class TestDynamodb(VolumeContract):
    flat_mb = 150.0  # as the peak depends on how many pages of eight partitions are there at once; all would be 2 GB

    @pytest.fixture
    def address(self, dynamodb_url) -> Address:
        return dynamodb_url, Path()


@pytest.mark.drill
@pytest.mark.timeout(3600)
class TestBigquery(VolumeContract):
    rows_at_once = 100_000

    @pytest.fixture
    def address(self, bigquery_url) -> Address:
        return bigquery_url, Path()
