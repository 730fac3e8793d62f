"""What the program declares, in the order in which the engine makes it."""

from __future__ import annotations

import asyncio

import pulumi
import pytest

from ems.clusters.laptop.place import Laptop
from ems.engine import program
from tests.conftest import registered


class Recorded(pulumi.runtime.Mocks):
    """An engine that makes whatever is declared, and remembers what and in which order."""

    def __init__(self):
        self.made = []

    def new_resource(self, args):
        self.made.append(args.typ)
        return f"id-{args.name}", {**args.inputs, "state": "succeeded"}

    def call(self, args):
        return {}


class Bucket(pulumi.CustomResource):
    def __init__(self, depends_on):
        super().__init__("cloud:index:Bucket", "bucket", {}, pulumi.ResourceOptions(depends_on=depends_on))


class Cloud(Laptop):
    """A place that is made of a resource of a cloud's own provider."""

    def declare(self, registration, settings, depends_on):
        return [Bucket(list(depends_on))]


def declared(row, due):
    engine = Recorded()
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(engine)
    pulumi.runtime.test(lambda: program._resources(row, "laptop", attempt=1, due=due))()
    return engine.made


@pytest.fixture
def row(here, monkeypatch):
    monkeypatch.setattr(program, "place", lambda kind: Cloud())
    return registered(here).registration


def test_the_place_comes_after_the_experiment_and_its_resources_before_the_cluster(row):
    assert declared(row, due=True) == [
        "ems:index:Experiment",
        "cloud:index:Bucket",
        "ems:index:Laptop",
        "ems:index:Run",
    ]


def test_an_experiment_that_is_finished_has_no_place(row):
    assert declared(row, due=False) == ["ems:index:Experiment", "ems:index:Run"]
