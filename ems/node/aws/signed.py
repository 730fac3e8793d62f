"""What an instance asks of AWS, with the credentials of its role. Standard library alone, Python 3.11 or newer.

The start-up script has it as it stands here, to fetch the rest of EMS.
Source: AWS's documentation of signature version 4 and of the instance metadata service, version 2.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

METADATA = "http://169.254.169.254/latest/"
ANSWER_S, METADATA_S = 60.0, 5.0
TRIES, PAUSE_S = 6, 1.0  # with pauses that double: a role that was just made is refused for some seconds
MAY_PASS = {403, 408, 429, 500, 502, 503, 504}
BLOCK = 1 << 20
Body = bytes | IO[bytes] | None


def metadata(path: str) -> str:
    """What the instance is told of itself; "" of what it is not told. OSError if nobody answers."""
    asked = urllib.request.Request(
        METADATA + "api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with urllib.request.urlopen(asked, timeout=METADATA_S) as answer:
        token = answer.read().decode()
    asked = urllib.request.Request(METADATA + path, headers={"X-aws-ec2-metadata-token": token})
    try:
        with urllib.request.urlopen(asked, timeout=METADATA_S) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


class Aws:
    """One region. FileNotFoundError of what is not there; OSError of what fails again and again."""

    def __init__(self, region: str, bucket: str) -> None:
        self._region, self._bucket = region, bucket

    def get(self, key: str, file: Path, sha256: str = "") -> None:
        """An object as a file, which appears whole; with `sha256`, OSError if it has another."""
        part, digest = file.with_name(f"{file.name}.part"), hashlib.sha256()
        with self._asked("GET", key) as answer, part.open("wb") as written:
            while block := answer.read(BLOCK):
                digest.update(block)
                written.write(block)
        if sha256 and digest.hexdigest() != sha256:
            raise OSError(f"{key} in {self._bucket} has SHA-256 {digest.hexdigest()}, not {sha256}")
        part.replace(file)

    def put(self, key: str, file: Path) -> None:
        """A file as an object."""
        with file.open("rb") as body, self._asked("PUT", key, body, file.stat().st_size) as answer:
            answer.read()

    def close(self, group: str) -> None:
        """Have an Auto Scaling group end its instances, and start no more. One that is gone is closed."""
        sizes = {"MinSize": "0", "MaxSize": "0", "DesiredCapacity": "0"}
        self._scaled({"Action": "UpdateAutoScalingGroup", "AutoScalingGroupName": group, **sizes})

    def give_back(self, instance: str) -> None:
        """Have an instance's group end it, and want one less."""
        words = {"InstanceId": instance, "ShouldDecrementDesiredCapacity": "true"}
        self._scaled({"Action": "TerminateInstanceInAutoScalingGroup", **words})

    def _scaled(self, words: dict[str, str]) -> None:
        body = urllib.parse.urlencode({"Version": "2011-01-01", **words}).encode()
        url = os.environ.get("AWS_ENDPOINT_URL") or f"https://autoscaling.{self._region}.amazonaws.com"
        try:
            with self._patiently("POST", url + "/", "autoscaling", body, len(body)) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if b"not found" not in error.read():
                raise

    def _asked(self, method: str, key: str, body: Body = None, size: int = 0) -> HTTPResponse:
        endpoint, path = os.environ.get("AWS_ENDPOINT_URL"), urllib.parse.quote(key)
        host = f"https://{self._bucket}.s3.{self._region}.amazonaws.com"
        url = f"{endpoint}/{self._bucket}/{path}" if endpoint else f"{host}/{path}"
        try:
            return self._patiently(method, url, "s3", body, size)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(f"{key} is not in {self._bucket}") from error
            raise

    def _patiently(self, method: str, url: str, service: str, body: Body, size: int) -> HTTPResponse:
        for number in range(TRIES):
            try:
                asked = urllib.request.Request(url, data=body, method=method)
                self._sign(asked, service, body if isinstance(body, bytes) else None, size)
                answer: HTTPResponse = urllib.request.urlopen(asked, timeout=ANSWER_S)
                return answer
            except OSError as error:
                last = number == TRIES - 1
                if last or (isinstance(error, urllib.error.HTTPError) and error.code not in MAY_PASS):
                    raise
                time.sleep(PAUSE_S * 2**number)
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)
        raise AssertionError

    def _sign(self, asked: urllib.request.Request, service: str, body: bytes | None, size: int) -> None:
        """As signature version 4 has it; contents of objects are not a part of it, as HTTPS keeps them whole."""
        path = "meta-data/iam/security-credentials/"
        who = json.loads(metadata(path + metadata(path).split("\n")[0]))
        url, now = urllib.parse.urlsplit(asked.full_url), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        said = "UNSIGNED-PAYLOAD" if service == "s3" else hashlib.sha256(body or b"").hexdigest()
        signed = {"host": url.netloc, "x-amz-content-sha256": said, "x-amz-date": now}
        signed["x-amz-security-token"] = who["Token"]
        names, scope = ";".join(signed), f"{now[:8]}/{self._region}/{service}/aws4_request"
        lines = "".join(f"{name}:{text}\n" for name, text in signed.items())
        request = f"{asked.get_method()}\n{url.path}\n{url.query}\n{lines}\n{names}\n{said}"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{who['SecretAccessKey']}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        who_and_what = f"Credential={who['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        headers = {**signed, "Authorization": f"AWS4-HMAC-SHA256 {who_and_what}"}
        if asked.data is not None:
            headers["Content-Length"] = str(size)
        if service == "s3":
            headers["Content-Type"] = "application/octet-stream"
        for name, text in headers.items():
            asked.add_header(name, text)
