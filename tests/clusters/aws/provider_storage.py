"""Buckets, and what is said of them."""

from __future__ import annotations

from typing import Any, ClassVar

from botocore.exceptions import ClientError
from pulumi_aws.s3 import bucket, bucket_lifecycle_configuration, bucket_public_access_block

from tests.clusters.aws.provider_kinds import (
    Account,
    Kind,
    Properties,
    Refused,
    from_service,
    gone,
    pairs,
    shape,
    to_service,
)

ACCESS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
TAKEN = "operation error S3: CreateBucket, api error BucketAlreadyExists: bucket {} already exists"


class Bucket(Kind):
    token, noun = "aws:s3/bucket:Bucket", "S3 Bucket"
    arguments, known = bucket.BucketArgs, bucket._BucketState
    named, tags_are_map = "bucket", True
    defaults: ClassVar[Properties] = {"forceDestroy": False}
    replacing = frozenset({"bucket", "bucketPrefix", "objectLockEnabled", "bucketNamespace", "region"})
    computed = frozenset({"bucket", "versioning"})
    kept = frozenset({"forceDestroy", "bucketPrefix"})
    undone = frozenset(
        {
            "accelerationStatus",
            "acl",
            "bucketNamespace",
            "corsRules",
            "grants",
            "lifecycleRules",
            "logging",
            "objectLockConfiguration",
            "objectLockEnabled",
            "policy",
            "replicationConfiguration",
            "requestPayer",
            "serverSideEncryptionConfiguration",
            "website",
        }
    )

    def create(self, aws: Account, inputs: Properties) -> str:
        s3, name = aws.client("s3"), self.name_of(inputs)
        if aws.region == "us-east-1" and _exists(s3, name):
            raise Refused(TAKEN.format(name))  # in this one region the service would give back one's own bucket
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": aws.region}}
        s3.create_bucket(Bucket=name, **({} if aws.region == "us-east-1" else elsewhere))
        return name

    def complete(self, aws: Account, id: str, inputs: Properties) -> None:
        self.update(aws, id, {"tags", "versioning"} & {*inputs, "tags"}, {}, inputs)

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        s3 = aws.client("s3")
        if not _exists(s3, id):
            return None
        versioning = s3.get_bucket_versioning(Bucket=id).get("Status") == "Enabled"
        return {
            "bucket": id,
            "arn": f"arn:aws:s3:::{id}",
            "bucketDomainName": f"{id}.s3.amazonaws.com",
            "bucketRegionalDomainName": f"{id}.s3.{aws.region}.amazonaws.com",
            "versioning": {"enabled": versioning, "mfaDelete": False},
            **self.read_tags(aws, _tags(s3, id), before),
        }

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        s3 = aws.client("s3")
        if changed & {"tags", "tagsAll"}:
            if tags := self.tags(aws, inputs):
                s3.put_bucket_tagging(Bucket=id, Tagging={"TagSet": pairs(tags)})
            elif before.get("tagsAll"):
                s3.delete_bucket_tagging(Bucket=id)
        if "versioning" in changed:
            status = "Enabled" if inputs.get("versioning", {}).get("enabled") else "Suspended"
            s3.put_bucket_versioning(Bucket=id, VersioningConfiguration={"Status": status})

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        s3 = aws.client("s3")
        try:
            if before.get("forceDestroy"):
                _empty(s3, id)
            s3.delete_bucket(Bucket=id)
        except ClientError as error:
            gone(error, "NoSuchBucket")


class BucketPublicAccessBlock(Kind):
    token, noun = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "S3 Bucket Public Access Block"
    arguments = bucket_public_access_block.BucketPublicAccessBlockArgs
    known = bucket_public_access_block._BucketPublicAccessBlockState
    replacing = frozenset({"bucket", "region"})
    defaults = dict.fromkeys(ACCESS, False)
    kept = frozenset({"skipDestroy"})

    def create(self, aws: Account, inputs: Properties) -> str:
        self.update(aws, inputs["bucket"], set(), {}, inputs)
        return str(inputs["bucket"])

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        try:
            found = aws.client("s3").get_public_access_block(Bucket=id)["PublicAccessBlockConfiguration"]
        except ClientError as error:
            gone(error, "NoSuchBucket", "NoSuchPublicAccessBlockConfiguration")
            return None
        return {"bucket": id, **from_service(found)}

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        said = {key[0].upper() + key[1:]: bool(inputs.get(key)) for key in ACCESS}
        aws.client("s3").put_public_access_block(Bucket=id, PublicAccessBlockConfiguration=said)

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        if before.get("skipDestroy"):
            return
        try:
            aws.client("s3").delete_public_access_block(Bucket=id)
        except ClientError as error:
            gone(error, "NoSuchBucket", "NoSuchPublicAccessBlockConfiguration")


class BucketLifecycleConfiguration(Kind):
    token = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    noun = "S3 Bucket Lifecycle Configuration"
    arguments = bucket_lifecycle_configuration.BucketLifecycleConfigurationArgs
    known = bucket_lifecycle_configuration._BucketLifecycleConfigurationState
    replacing = frozenset({"bucket", "expectedBucketOwner", "region"})
    computed = frozenset({"transitionDefaultMinimumObjectSize"})
    unordered = frozenset({"rules"})
    kept = frozenset({"timeouts"})
    undone = frozenset({"expectedBucketOwner", "transitionDefaultMinimumObjectSize"})
    remembers = True

    def create(self, aws: Account, inputs: Properties) -> str:
        self.update(aws, inputs["bucket"], set(), {}, inputs)
        return str(inputs["bucket"])

    def read(self, aws: Account, id: str, before: Properties) -> Properties | None:
        try:
            found = aws.client("s3").get_bucket_lifecycle_configuration(Bucket=id)
        except ClientError as error:
            gone(error, "NoSuchBucket", "NoSuchLifecycleConfiguration")
            return None
        size = "all_storage_classes_128K"
        return {"bucket": id, "rules": from_service(found["Rules"]), "transitionDefaultMinimumObjectSize": size}

    def update(self, aws: Account, id: str, changed: set[str], before: Properties, inputs: Properties) -> None:
        s3 = aws.client("s3")
        rules = [{"filter": {"prefix": ""}, **rule} if "prefix" not in rule else rule for rule in inputs["rules"]]
        wanted = shape(s3, "PutBucketLifecycleConfiguration", "LifecycleConfiguration", "Rules")
        said = {"Rules": to_service(wanted, rules)}
        s3.put_bucket_lifecycle_configuration(Bucket=id, LifecycleConfiguration=said)

    def delete(self, aws: Account, id: str, before: Properties) -> None:
        try:
            aws.client("s3").delete_bucket_lifecycle(Bucket=id)
        except ClientError as error:
            gone(error, "NoSuchBucket", "NoSuchLifecycleConfiguration")


def _exists(s3: Any, name: str) -> bool:
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        gone(error, "404", "NoSuchBucket")
        return False
    return True


def _tags(s3: Any, name: str) -> list[dict[str, str]]:
    try:
        return list(s3.get_bucket_tagging(Bucket=name)["TagSet"])
    except ClientError as error:
        gone(error, "NoSuchTagSet")
        return []


def _empty(s3: Any, name: str) -> None:
    """All versions of all files."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        every = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        keys = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in every]
        if keys:
            s3.delete_objects(Bucket=name, Delete={"Objects": keys})
