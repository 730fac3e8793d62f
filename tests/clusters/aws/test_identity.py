"""The rights that a cloud takes: those of the lab's own store and database, and no others."""

from __future__ import annotations

import json

import pytest

from ems.clusters.aws import identity

SECRET = "arn:aws:secretsmanager:us-west-2:123456789012:secret:lab/db-a1"
PLAIN = ("gs://bucket/files", "postgresql://there/lab")


def statements(store: str = PLAIN[0], database: str = PLAIN[1]) -> list[dict]:
    """Those that a plain lab's machines do not have."""
    usual = identity.of_machines("ours", *PLAIN)["Statement"]
    return [each for each in identity.of_machines("ours", store, database)["Statement"] if each not in usual]


def test_machines_of_a_lab_that_keeps_nothing_else_in_aws_reach_their_bucket_and_their_groups():
    found = identity.of_machines("ours", *PLAIN)["Statement"]
    assert {resource.split(":")[2] for resource in (each["Resource"] for each in found)} == {"s3", "autoscaling"}
    assert all("*" not in action for each in found for action in each["Action"])


@pytest.mark.parametrize("url", ["s3://theirs/a/b", "s3://theirs/a/b/"])
def test_a_store_is_written_below_its_prefix(url):
    objects, bucket = statements(store=url)
    assert objects["Resource"] == "arn:aws:s3:::theirs/a/b/*" and "s3:PutObject" in objects["Action"]
    assert bucket["Resource"] == "arn:aws:s3:::theirs"


@pytest.mark.parametrize("more", ["", ":password:AWSCURRENT:", "&sslmode=require"])
def test_a_password_is_read_from_its_secret(more):
    (found,) = statements(database=f"postgresql://there/lab?password_from={SECRET}{more}")
    assert found == {"Effect": "Allow", "Action": ["secretsmanager:GetSecretValue"], "Resource": SECRET}


def test_tables_of_dynamodb_are_written():
    (found,) = statements(database="dynamodb://us-west-2/lab")
    assert found["Resource"] == "arn:*:dynamodb:us-west-2:*:table/lab-re*" and "dynamodb:PutItem" in found["Action"]


def test_who_starts_runs_hands_one_role_on_and_changes_what_is_a_runs():
    found = identity.of_people("ours", "node")["Statement"]
    (passed,) = [each for each in found if "iam:PassRole" in each["Action"]]
    assert passed["Resource"] == "arn:aws:iam::*:role/node"
    assert all("Condition" in each for each in found if "ec2:DeleteLaunchTemplate" in each["Action"])
    assert len(json.dumps(identity.of_people("ours", "node"))) < 2_048
