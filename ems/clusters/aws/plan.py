"""What a run is made of in the cloud, as pure functions of what is wanted: names, tags, the start-up script."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ems.base.errors import UserError
from ems.clusters import shipping
from ems.clusters.aws.settings import Wanted
from ems.databases import Registration
from ems.node.aws import signed
from ems.node.aws.boot import HEAD, WORKERS, NodeConfig

PREFIX = "ems/"  # of all that EMS keeps in the bucket
FOLDER = "/var/lib/ems"  # of an instance
ACTION = "deadline"  # the name of what closes a group
MARGIN_MIN = 60  # beyond the experiment's own limit, for the start and for what is stored last
SCRIPT = """\
#!/bin/sh
# One of the {role} of experiment {id}. It is switched off after {minutes} minutes, whatever happens.
leave() {{ echo "ems: $1" >&2; shutdown -P now; exit 1; }}
shutdown -P +{minutes} || leave "no timer can be set"
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || leave "this image has no Python 3.11 or newer"
umask 077
mkdir -p {folder} && cd {folder} || leave "there is no folder {folder}"
cat > config.json <<'END OF CONFIG'
{config}
END OF CONFIG
cat > fetch.py <<'END OF FETCH'
{signed}

Aws("{region}", "{bucket}").get("{code}", Path("ems.zip"), "{sha256}")
END OF FETCH
"$python" -I fetch.py || leave "EMS's code could not be fetched"
"$python" -I -c 'import sys; sys.path.insert(0, "ems.zip"); from ems.node.aws.boot import main; main()' config.json
leave "there is nothing more to do"
"""


@dataclass(frozen=True)
class Machines:
    """What a group starts, once it is opened to its size. `template`: its name, which says its content.

    `types`: of instances, the one that is wanted first.
    """

    role: str
    group: str
    types: tuple[str, ...]
    spot: bool
    script: str
    wanted: Wanted
    tags: dict[str, str]
    template: str = ""
    size: int = 1


def machines(registration: Registration, wanted: Wanted) -> list[Machines]:
    """All that a run is made of, with the code of this EMS: its head, and its workers if it has some."""
    others = _made(registration, wanted, WORKERS, wanted.machine, wanted.spot)
    if not others.size:
        return [_made(registration, wanted, HEAD, wanted.machine, wanted.spot)]
    return [_made(registration, wanted, HEAD, wanted.head_machine, wanted.head_spot), others]


def refuse(registration: Registration, wanted: Wanted) -> None:
    """UserError for a sweep whose rounds only the head would know."""
    if json.loads(registration.spec)["job"].get("propose") and workers(registration, wanted):
        raise UserError(
            f"{registration.stack} proposes points (propose), which machines of {registration.cluster} beside the head "
            f"would not know: `machines` is {wanted.machines}.",
            "Set machines: 0 in its cluster, and a `machine` with more CPUs.",
        )


def sizes(registration: Registration, wanted: Wanted) -> dict[str, int]:
    """How many machines each group has once it is opened; that of the head comes first."""
    count = workers(registration, wanted)
    return {group_of(registration.id, HEAD): 1, **({group_of(registration.id, WORKERS): count} if count else {})}


def workers(registration: Registration, wanted: Wanted) -> int:
    """How many machines join the head of a run: of a sweep alone, and no more than it has points."""
    is_sweep = bool(json.loads(registration.spec)["job"].get("sweep"))
    return min(wanted.machines, registration.points_total) if is_sweep else 0


def _made(registration: Registration, wanted: Wanted, role: str, types: tuple[str, ...], spot: bool) -> Machines:
    group = group_of(registration.id, role)
    made = Machines(role, group, types, spot, script(registration, wanted, role), wanted, tags(registration))
    content = json.dumps(asdict(made), sort_keys=True).encode()
    template = f"{group}-{hashlib.sha256(content).hexdigest()[:12]}"
    return replace(made, template=template, size=sizes(registration, wanted).get(group, 0))


def minutes(registration: Registration) -> int:
    """After which no machine of a run is left, whatever happens. UserError without a limit."""
    hours: float | None = json.loads(registration.spec)["limits"]["max_hours"]
    if hours is None:
        raise UserError(
            "A run in a cloud needs a limit, at which its machines end whatever happens.",
            f"Give {registration.stack} one: limits: {{max_hours: 12}}",
        )
    return round(60 * hours) + MARGIN_MIN


def script(registration: Registration, wanted: Wanted, role: str) -> str:
    """What an instance does first of all."""
    code_sha256 = hashlib.sha256(shipping.zipped_code()).hexdigest()
    told = NodeConfig(
        role=role,
        region=wanted.region,
        bucket=wanted.bucket,
        run=run_prefix(registration.id),
        archives=f"{PREFIX}environments/",
        folder=FOLDER,
        groups=tuple(sizes(registration, wanted)),
        workers=workers(registration, wanted),
    )
    return SCRIPT.format(
        role=role,
        id=registration.id,
        minutes=minutes(registration),
        folder=FOLDER,
        config=json.dumps(asdict(told), indent=1),
        signed=Path(signed.__file__).read_text(encoding="utf-8").rstrip(),
        region=wanted.region,
        bucket=wanted.bucket,
        code=code_key(code_sha256),
        sha256=code_sha256,
    )


def run_prefix(experiment_id: str) -> str:
    """Of what is a run's own in the bucket."""
    return f"{PREFIX}runs/{experiment_id}/"


def code_key(sha256: str) -> str:
    """Of EMS's own code."""
    return f"{PREFIX}code/{sha256}.zip"


def group_of(experiment_id: str, role: str) -> str:
    """The name of a group."""
    return f"ems-{experiment_id}-{role}"


def tags(registration: Registration) -> dict[str, str]:
    """By which people, bills and `ems teardown` find what belongs to a run."""
    return {
        "ems:experiment": registration.id,
        "ems:stack": registration.stack,
        "ems:project": registration.project,
        "ems:funding": registration.funding,
        "ems:experimenter": registration.experimenter,
        "ems:commit": registration.commit,
    }
