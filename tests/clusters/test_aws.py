"""A cloud of AWS as a place: groups that are opened and closed, instances that are machines, a database they reach."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ems.base.errors import EmsError
from ems.clusters import shipping
from ems.clusters.aws import place as places
from ems.clusters.aws import plan
from ems.clusters.aws.place import Aws, settings_of
from ems.databases import ClusterRow, Experiment, Registration, State
from ems.lab import Lab
from ems.node.aws.boot import HEAD
from tests.clusters.aws import made
from tests.clusters.aws.cloud import REGION, Cloud
from tests.clusters.aws.instances import InstanceHost, Instances, running_with_instances
from tests.clusters.slurm_server import environments
from tests.databases.servers import PostgresqlServer
from tests.place_contract import LONG, ROWS, PlaceContract, held_folder
from tests.processes import PATIENCE_S, eventually, having

pytestmark = pytest.mark.xdist_group("aws")  # EMS's own environment is built once for all


@dataclasses.dataclass
class World:
    """All that a test has."""

    cloud: Cloud
    instances: Instances
    database: PostgresqlServer
    settings: dict[str, Any]

    def host(self) -> InstanceHost:
        """The machine that is on."""
        eventually(self.instances.hosts)
        (host,) = self.instances.hosts()
        return host


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_with_instances(held_folder()) as (cloud, instances):
        network = instances.network
        access = f"host all all {network.prefix}.0/24 trust\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        server = PostgresqlServer.make(f"listen_addresses = '127.0.0.1,{network.address}'\n", access)
        try:
            settings = made.account(cloud)
            made.archives(cloud, Path(environments()["environments_dir"]))
            yield World(cloud, instances, server, settings)
        finally:
            server.end()


class Made(Aws):
    """With the groups that Pulumi would have made before."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self._cloud = cloud

    def prepare(self, lab: Lab, registration: Registration, say: Any) -> None:
        for machines in plan.machines(registration, settings_of(lab, registration)):
            made.group(self._cloud, machines)
        super().prepare(lab, registration, say)


class TestAws(PlaceContract):
    @pytest.fixture
    def here(self, here: Lab, world: World) -> Iterator[Lab]:
        with world.database.database() as name:
            url = world.database.url(name).replace("127.0.0.1", world.instances.network.address)
            yield dataclasses.replace(here, database_url=url)

    @pytest.fixture
    def place(self, here: Lab, world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
        keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word", "AWS_DEFAULT_REGION": REGION}
        for name, text in {**keys, "AWS_ENDPOINT_URL": world.cloud.url}.items():
            monkeypatch.setenv(name, text)
        with here.database() as database:
            database.create()
            database.upsert(ClusterRow("laptop", "aws", json.dumps(world.settings)))
        yield Made(world.cloud)
        autoscaling = world.cloud.client("autoscaling")
        for each in autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]:
            autoscaling.delete_auto_scaling_group(AutoScalingGroupName=each["AutoScalingGroupName"], ForceDelete=True)
        eventually(lambda: not world.instances.hosts())

    @pytest.fixture(autouse=True)
    def known(self, world: World) -> None:
        self.world = world

    def kill(self, lab: Lab, experiment: Experiment) -> None:
        for process in having("ems.node.aws.head", self.world.host().init.children(recursive=True)):
            process.kill()

    def spoil(self, lab: Lab, experiment: Experiment) -> None:
        key = f"{plan.run_prefix(experiment.id)}manifest.json"
        self.world.cloud.client("s3").put_object(Bucket=made.BUCKET, Key=key, Body=b"no list")

    spoilt = "JSONDecodeError"
    drilled = (
        *LONG,
        "test_a_machine_that_is_taken_away_is_followed_by_another_that_goes_on",
        "test_a_machine_that_is_told_two_minutes_ahead_leaves_in_order",
        "test_machines_that_come_and_go_without_a_word_are_not_asked_for_for_ever",
    )

    def beat_seldom(self, lab: Lab, experiment: Experiment) -> None:
        """They beat each two seconds, and hear with that what they are told: they are out of reach."""

    # What is asked for ends

    def test_once_the_run_is_over_no_machine_is_asked_for(self, place, here, world):
        experiment = self.prepared(place, here)
        self.finish(place, here, experiment)
        eventually(lambda: not world.instances.hosts())
        group = place._run(here, experiment.id).account.group(plan.group_of(experiment.id, HEAD))
        assert (group["DesiredCapacity"], group["MaxSize"], group["Instances"]) == (0, 0, [])

    def test_a_machine_that_is_taken_away_is_followed_by_another_that_goes_on(self, place, here, world):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        (instance,) = world.cloud.instances()
        world.cloud.preempt(instance)
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)

    # Faults of the cloud

    def told(self, place: Aws, here: Lab, experiment: Experiment, wanted: str) -> None:
        """Ask the place for the run until it says something like this."""
        give_up_at = time.monotonic() + PATIENCE_S
        while wanted not in (said := place.ensure_running(here, self.look(here, experiment))):
            assert time.monotonic() < give_up_at, said
            time.sleep(0.1)

    def test_what_has_no_machine_waits_and_says_why(self, place, here, world, monkeypatch):
        monkeypatch.setattr(places, "LOOK_S", 0.5)
        world.cloud.sold_out.add("t3.micro")
        experiment = self.prepared(place, here)
        self.told(place, here, experiment, "no machine for it yet: Could not launch On-Demand Instances. Insufficient")
        live = place.live(here, self.look(here, experiment))
        assert live and live.waits == "0 of 1 machine there"
        world.cloud.sold_out.clear()
        assert self.finish(place, here, experiment).rows_stored == ROWS

    def test_a_group_that_somebody_has_closed_is_opened_again(self, place, here, world, monkeypatch):
        monkeypatch.setattr(places, "LOOK_S", 0.5)
        experiment = self.prepared(place, here)
        run = place._run(here, experiment.id)
        run.close()
        self.told(place, here, experiment, "its group was closed; it was opened again")
        assert self.finish(place, here, experiment).rows_stored == ROWS

    def test_a_machine_that_is_told_two_minutes_ahead_leaves_in_order(self, place, here, world):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.rows_stored > 0)
        (instance,) = world.cloud.instances()
        world.host().warn()
        eventually(lambda: instance.id not in {each.id for each in world.cloud.instances()})
        ended = self.finish(place, here, experiment)
        assert (ended.state, ended.attempt, ended.rows_stored) == (State.SUCCEEDED, 2, ROWS)

    def test_machines_that_come_and_go_without_a_word_are_not_asked_for_for_ever(self, place, here, world, monkeypatch):
        monkeypatch.setattr(places, "LOOK_S", 0.2)
        world.cloud.sold_out.add("t3.micro")
        experiment = self.prepared(place, here)
        key = plan.code_key(hashlib.sha256(shipping.zipped_code()).hexdigest())
        world.cloud.client("s3").put_object(Bucket=made.BUCKET, Key=key, Body=b"no code")
        world.cloud.sold_out.clear()
        try:
            with pytest.raises(EmsError, match=r"machines of ems-.* came and went without a word"):
                self.finish(place, here, experiment)
        finally:
            world.cloud.client("s3").put_object(Bucket=made.BUCKET, Key=key, Body=shipping.zipped_code())
        eventually(lambda: not world.instances.hosts())
