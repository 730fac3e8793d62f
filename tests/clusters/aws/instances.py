"""Instances that compute: each one of the cloud's is a machine that runs its user data as root, and nothing else.

It has the metadata service with its role's own credentials, and reaches the cloud and whatever else is on the bridge.
Of this machine it sees the system alone: no cache, no project, no environment of Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moto.ec2.models.instances import Instance

from tests.clusters.aws import metadata
from tests.clusters.aws.cloud import REGION, Cloud, running
from tests.clusters.machines import Machine, Network, made_network
from tests.processes import eventually

HIDDEN = (Path("/root"), Path("/home"), Path(__file__).parents[3])
USER_DATA = "etc/user-data"
ENDS = ("shutdown", "poweroff", "halt")
ON = """\
trap 'exit 0' TERM
for name in ENDS; do
    cat > /usr/local/sbin/$name <<'END'
#!/bin/sh
echo "$0 $*" >> /var/log/off.log
minutes=$(echo "$*" | sed -n 's/.*+\\([0-9]*\\).*/\\1/p')
if [ -n "$minutes" ]; then (sleep $((minutes * 60)); kill -TERM 1) > /dev/null 2>&1 & else kill -TERM 1; fi
END
    chmod 755 /usr/local/sbin/$name
done
sh /etc/user-data > /var/log/user-data.log 2>&1 &
while :; do sleep 3600 & wait $!; done
""".replace("ENDS", " ".join(ENDS))


class InstanceHost(Machine):
    """An instance of the cloud, switched on."""

    init_script = ON

    def __init__(
        self, network: Network, number: int, cloud: Cloud, instance: Instance, shared: Sequence[Path] = ()
    ) -> None:
        super().__init__(network, number, shared, [folder for folder in HIDDEN if folder.is_dir()])
        self.instance, self._cloud = instance, cloud
        self.is_over = False
        self.variables = {"AWS_ENDPOINT_URL": cloud.url, "AWS_DEFAULT_REGION": REGION}
        user_data = self.folder / "disk/upper" / USER_DATA
        user_data.parent.mkdir(parents=True)
        user_data.write_text(instance.user_data.decode() if instance.user_data else "")
        self._paths = {
            "meta-data/instance-id": instance.id,
            "meta-data/local-ipv4": self.address,
            "meta-data/placement/region": REGION,
            "meta-data/placement/availability-zone": str(instance.placement),
            **self._of_role(),
        }
        self._say()
        try:
            self.start()
        except BaseException:
            self.end()
            raise

    def _is_up(self) -> bool:
        """Whether its user data has begun: before, it could not be switched off."""
        return (self.folder / "disk/upper/var/log/user-data.log").exists()

    def _connect(self) -> None:
        super()._connect()
        address, port = metadata.ADDRESS
        within = ("ip", "netns", "exec", self.name)
        subprocess.run([*within, "ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
        command = ["setpriv", "--pdeathsig", "KILL", *within, sys.executable, metadata.__file__, self._file]
        self._service = subprocess.Popen(command, start_new_session=True)
        listens = [*within, "ss", "-Hltn", f"sport = {port}"]
        eventually(lambda: subprocess.run(listens, capture_output=True, check=False).stdout)

    def _disconnect(self) -> None:
        self._service.kill()
        self._service.wait()
        super()._disconnect()

    @property
    def _file(self) -> Path:
        return self.folder / "metadata.json"

    def _say(self) -> None:
        self._file.write_text(json.dumps({"paths": self._paths}))

    def _of_role(self) -> dict[str, str]:
        """The temporary credentials of the role in its profile."""
        profile = (self.instance.iam_instance_profile or {}).get("Name")
        if not profile:
            return {}
        (role,) = self._cloud.client("iam").get_instance_profile(InstanceProfileName=profile)["InstanceProfile"][
            "Roles"
        ]
        words = {"RoleArn": role["Arn"], "RoleSessionName": self.instance.id}
        found: dict[str, Any] = self._cloud.client("sts").assume_role(**words)["Credentials"]
        said = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": found["AccessKeyId"],
            "SecretAccessKey": found["SecretAccessKey"],
            "Token": found["SessionToken"],
            "Expiration": found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        path = "meta-data/iam/security-credentials/"
        return {path: role["RoleName"], path + role["RoleName"]: json.dumps(said)}

    def warn(self) -> None:
        """It is taken away in two minutes, says the metadata service."""
        at = self._cloud.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._paths["meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        self._say()

    def has_ended(self) -> bool:
        """Whether it has switched itself off."""
        return self._boots.poll() is not None

    def end(self) -> None:
        self.is_over = True
        super().end()


class Instances:
    """Those of a cloud, as machines. One that switches itself off is terminated, as the cloud does it."""

    def __init__(self, cloud: Cloud, network: Network, shared: Sequence[Path] = ()) -> None:
        """`shared`: folders of this machine that all of them see."""
        self._cloud, self.network, self._shared = cloud, network, shared
        self._found: dict[str, InstanceHost] = {}
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)  # one at a time; a machine ends with the thread that has switched it on
        cloud.began, cloud.ended = self._begin, self._end
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def of(self, instance: Instance) -> InstanceHost:
        """Its machine, once that is on."""
        eventually(lambda: instance.id in self._found)
        return self._found[instance.id]

    def hosts(self) -> list[InstanceHost]:
        """Those that are on."""
        return [host for host in self._found.values() if not host.is_over]

    def _begin(self, instance: Instance) -> None:
        self._pool.submit(self._switch_on, instance)

    def _switch_on(self, instance: Instance) -> None:
        if instance.id in {each.id for each in self._cloud.instances()}:
            number = len(self.network.members)
            host = InstanceHost(self.network, number, self._cloud, instance, self._shared)
            self.network.members.append(host)
            self._found[instance.id] = host

    def _end(self, instance: Instance) -> None:
        self._pool.submit(self._switch_off, instance)

    def _switch_off(self, instance: Instance) -> None:
        if (host := self._found.get(instance.id)) and not host.is_over:
            host.end()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for host in self.hosts():
                if host.has_ended():
                    with suppress(Exception):
                        self._cloud.preempt(host.instance)

    def close(self) -> None:
        """All are switched off, and no more begin."""
        self._over.set()
        self._watch.join()
        self._pool.shutdown(cancel_futures=True)
        for host in self.hosts():
            host.end()


@contextmanager
def running_with_instances(*shared: Path) -> Iterator[tuple[Cloud, Instances]]:
    """A cloud with nothing in it, whose instances are machines; `shared`: as of Instances."""
    with made_network() as network, running(network.address) as cloud:
        found = Instances(cloud, network, shared)
        try:
            yield cloud, found
        finally:
            found.close()
