"""AWS: a group of one instance for each run, of size 0 until it is opened, and again as soon as the run is over.

What a run needs goes through the bucket; its agent stores into the lab's database by itself. Whatever happens here, the
service closes the group at a time that was set before it was opened, and the instance switches itself off.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ems.base.errors import EmsError, Unreachable
from ems.base.messages import Say, counted, quiet
from ems.base.private import make_folder
from ems.clusters import Live, Place, local, settings_said, shipping
from ems.clusters.aws import identity, plan
from ems.clusters.aws.account import Account
from ems.clusters.aws.settings import Wanted, require, wanted
from ems.databases import Experiment, Registration, State
from ems.lab import Lab
from ems.lab.experiments import find
from ems.node.agent.config import AgentConfig
from ems.node.aws.boot import ENDED, MANIFEST, UV
from ems.node.environments.ready import CODE, ORDER
from ems.node.run_folder import LOG_BYTES

if TYPE_CHECKING:
    from ems.provenance.environment import Environment

LOOK_S = 5.0  # between two looks at a group
MOST_OPENINGS = 3  # by this process, of a run that does not get on
COPY_S = 10.0  # in which a machine has copied its log once its run is over
MOST_MACHINES = 3  # that come and go without a word


@dataclass
class _Run:
    """One run, as this process knows it."""

    account: Account
    wanted: Wanted
    sizes: dict[str, int]
    """Of its groups, once they are open."""
    looked_at: float = 0.0
    openings: int = 0
    machines: set[str] = field(default_factory=set)  # seen since the run was last at work
    told: str = ""

    @property
    def group(self) -> str:
        """That of the head."""
        return next(iter(self.sizes))

    def close(self) -> None:
        """The head last: it would go on without the others."""
        for name in reversed(self.sizes):
            self.account.resize(name, 0)


class Aws(Place):
    """The groups are resources of Pulumi's; here they are opened and closed."""

    needs_remote = shares_files = False

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        self._runs: dict[str, _Run] = {}

    def host(self, settings: Mapping[str, Any], login: str) -> None:  # noqa: ARG002
        require(settings)

    def needs(self, lab: Lab, settings: Mapping[str, Any]) -> Sequence[str]:
        bucket = settings.get("bucket") or "BUCKET"
        machines = identity.of_machines(bucket, lab.store_url, lab.database_url)
        people = identity.of_people(bucket, "ROLE")
        return [f"its machines may {json.dumps(machines)}", f"who starts runs may {json.dumps(people)}"]

    def establish(self, lab: Lab, stack: str, settings: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Any]]:
        from ems.clusters.aws import foundation  # Pulumi's libraries

        require(settings)
        return foundation.made(lab, stack, settings)

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:  # noqa: ARG002
        found = wanted(settings)
        account = self._account(found)
        say(f"asking AWS in {found.region}")
        account.put(f"{plan.PREFIX}ready", b"")
        return {"region": found.region, "bucket": found.bucket, "machine": found.machine[0]}

    def refuse(self, lab: Lab, registration: Registration) -> None:
        plan.minutes(registration)
        plan.refuse(registration, settings_of(lab, registration))

    def declare(
        self, registration: Registration, settings: Mapping[str, Any], depends_on: Sequence[Any]
    ) -> Sequence[Any]:
        from ems.clusters.aws.declared import groups  # Pulumi's libraries

        needed = wanted(json.loads(registration.spec)["cluster"], settings)
        return groups(plan.machines(registration, needed), plan.minutes(registration), depends_on)

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        run = self._known(lab, registration)
        self._send(lab, registration, run, say)
        self._open(registration, run, say)

    def _send(
        self, lab: Lab, registration: Registration, run: _Run, say: Say, prepare: Callable[..., None] = local.prepare
    ) -> None:
        """What the instance fetches; all of it is content, under its SHA-256, but for the list."""
        from uv import find_uv_bin  # which agents do without

        run_dir = lab.run_dir(registration.id)
        make_folder(run_dir)

        def describe(environment: Environment, say: Say) -> None:  # noqa: ARG001
            there = plan.FOLDER
            order = shipping.order(
                environment, archives=f"{there}/archives", scratch=f"{there}/scratch", code=f"{there}/run/{CODE}"
            )
            replace(order, uv=f"{there}/{UV}", variables={}).write(run_dir / ORDER)
            shipping.zip_code(run_dir / CODE)

        prepare(lab, registration, say, describe)
        config, folder = AgentConfig.read(run_dir), Path(plan.FOLDER)
        files = {f"inputs/{Path(file).name}": Path(file) for file in config.inputs.values()}
        bundle = Path(config.bundle)
        files |= {f"run/{CODE}": run_dir / CODE, f"run/{ORDER}": run_dir / ORDER, bundle.name: bundle}
        inputs = {name: str(folder / "inputs" / Path(file).name) for name, file in config.inputs.items()}
        there = replace(config, root=str(folder), bundle=str(folder / bundle.name), inputs=inputs)
        there.write(run_dir / "there")
        files["run/agent.json"] = run_dir / "there" / "agent.json"
        if platform.system() == "Linux":  # else an instance has one, or finds all archives
            files[UV] = Path(find_uv_bin())
        say(f"sending code and inputs to {run.wanted.bucket}")
        listed = [{"path": path, **self._sent(run, path, file)} for path, file in files.items()]
        run.account.put(f"{plan.run_prefix(registration.id)}{MANIFEST}", json.dumps(listed).encode())
        run.account.remove(f"{plan.run_prefix(registration.id)}{ENDED}")

    def _sent(self, run: _Run, path: str, file: Path) -> dict[str, str]:
        """Have a file in the bucket: key and SHA-256."""
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        key = plan.code_key(digest) if path.endswith(CODE) else f"{plan.PREFIX}files/{digest}"
        if not run.account.has(key, file.stat().st_size):
            run.account.put(key, file)
        return {"key": key, "sha256": digest}

    def _open(self, registration: Registration, run: _Run, say: Say) -> None:
        """EmsError if a group is not there: Pulumi makes it. Only what ends by itself is opened."""
        for name, size in run.sizes.items():
            group = run.account.group(name)
            if group is None:
                hint = f"Make it again: ems up {registration.stack}"
                raise EmsError(f"The group {name} of {registration.stack} is not there.", hint)
            if not run.account.ends_at(name):
                end = datetime.now(UTC) + timedelta(minutes=plan.minutes(registration))
                run.account.close_at(name, plan.ACTION, end)
            if group["DesiredCapacity"] == 0:
                say(f"opening {name}")
                run.openings += name == run.group
                run.account.resize(name, size)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        run = self._run(lab, experiment_id)
        if run is None or run.account.group(run.group) is None:
            return False
        return run.account.has(f"{plan.run_prefix(experiment_id)}{MANIFEST}")

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:  # noqa: ARG002
        if run := self._run(lab, experiment_id):
            run.close()
        self._runs.pop(experiment_id, None)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        run = self._run(lab, experiment.id)
        if run is None or time.monotonic() - run.looked_at < LOOK_S:
            return ""
        run.looked_at = time.monotonic()
        if experiment.state is State.RUNNING:
            run.machines.clear()
            return ""
        try:
            said = self._looked(lab, experiment, run)
        except Unreachable as error:
            said = f"waiting for AWS: {error.message}"
        run.told, before = said, run.told
        return said if said != before else ""

    def _looked(self, lab: Lab, experiment: Experiment, run: _Run) -> str:
        """EmsError where the run has ended again and again without a result."""
        group = run.account.group(run.group)
        if group and group["DesiredCapacity"]:
            run.machines |= {each["InstanceId"] for each in group["Instances"]}
            if len(run.machines) > MOST_MACHINES:
                run.close()
                hint = f"See what one says: aws ec2 get-console-output --instance-id {min(run.machines)}"
                raise EmsError(f"{MOST_MACHINES} machines of {run.group} came and went without a word.", hint)
            failure = "" if group["Instances"] else run.account.failure(run.group)
            return f"AWS has no machine for it yet: {failure}" if failure else ""
        why = (run.account.get(f"{plan.run_prefix(experiment.id)}{ENDED}") or b"").decode(errors="replace")
        if run.openings and (why or run.openings >= MOST_OPENINGS):
            hint = f"Go on with: ems up {experiment.registration.stack}"
            raise EmsError(f"The machine ended without a result: {why or 'it said nothing'}", hint)
        self._send(lab, experiment.registration, run, quiet, local.prepare_again)
        self._open(experiment.registration, run, quiet)
        return "its group was closed; it was opened again"

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        with suppress(Unreachable):  # it closes itself
            if run := self._run(lab, experiment_id):
                run.close()

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """What a machine had not stored when it was switched off is gone with it."""

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        """The agent hears its orders with its next beat, which is never far."""

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        run = self._run(lab, experiment.id)
        if run and experiment.state.finished:
            self._await_end(run)
        found = run.account.get(f"{plan.run_prefix(experiment.id)}job.log") if run else None
        return None if found is None else found[start if start >= 0 else max(0, len(found) + start) :][:LOG_BYTES]

    def _await_end(self, run: _Run) -> None:
        """The machine copies the end of its log before it closes its group."""
        give_up_at = time.monotonic() + COPY_S
        while (group := run.account.group(run.group)) and group["DesiredCapacity"] and time.monotonic() < give_up_at:
            time.sleep(0.2)

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        run = self._run(lab, experiment.id)
        try:
            groups = [run.account.group(name) for name in run.sizes] if run else []
        except EmsError:
            return None
        found = [each for each in groups if each]
        if not found:
            return None
        wanted = sum(each["DesiredCapacity"] for each in found)
        there = sum(instance["LifecycleState"] == "InService" for each in found for instance in each["Instances"])
        lacks = not experiment.state.finished and there < wanted
        return Live(waits=f"{there} of {counted(wanted, 'machine')} there" if lacks else "")

    def _account(self, found: Wanted) -> Account:
        return self._accounts.setdefault((found.region, found.bucket), Account(found.region, found.bucket))

    def _known(self, lab: Lab, registration: Registration) -> _Run:
        if registration.id not in self._runs:
            needed = settings_of(lab, registration)
            sizes = plan.sizes(registration, needed)
            self._runs[registration.id] = _Run(self._account(needed), needed, sizes)
        return self._runs[registration.id]

    def _run(self, lab: Lab, experiment_id: str) -> _Run | None:
        if experiment_id not in self._runs and (found := find(lab, experiment_id)):
            self._known(lab, found.registration)
        return self._runs.get(experiment_id)


def settings_of(lab: Lab, registration: Registration) -> Wanted:
    """What holds for a run."""
    return wanted(*settings_said(lab, registration))


PLACE = Aws()
