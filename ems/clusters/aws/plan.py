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
from ems.node.aws.boot import HeadConfig

PREFIX = "ems/"  # of all that EMS keeps in the bucket
FOLDER = "/var/lib/ems"  # of an instance
HEAD = "head"
ACTION = "deadline"  # the name of what closes a group
MARGIN_MIN = 60  # beyond the experiment's own limit, for the start and for what is stored last
SCRIPT = """\
#!/bin/sh
# The head of experiment {id}. It is switched off after {minutes} minutes, whatever happens.
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
leave "the run's head has ended"
"""


@dataclass(frozen=True)
class Machines:
    """What a group starts. `template`: its name, which says its content."""

    group: str
    template: str
    script: str
    wanted: Wanted
    tags: dict[str, str]


def head(registration: Registration, wanted: Wanted) -> Machines:
    """The head of a run, with the code of this EMS."""
    code_sha256 = hashlib.sha256(shipping.zipped_code()).hexdigest()
    text = script(registration.id, wanted, code_sha256, minutes(registration))
    made = Machines(group_of(registration.id, HEAD), "", text, wanted, tags(registration))
    content = json.dumps(asdict(made), sort_keys=True).encode()
    return replace(made, template=f"{made.group}-{hashlib.sha256(content).hexdigest()[:12]}")


def minutes(registration: Registration) -> int:
    """After which no machine of a run is left, whatever happens. UserError without a limit."""
    hours: float | None = json.loads(registration.spec)["limits"]["max_hours"]
    if hours is None:
        raise UserError(
            "A run in a cloud needs a limit, at which its machines end whatever happens.",
            f"Give {registration.stack} one: limits: {{max_hours: 12}}",
        )
    return round(60 * hours) + MARGIN_MIN


def script(experiment_id: str, wanted: Wanted, code_sha256: str, most_minutes: int) -> str:
    """What an instance does first of all."""
    source = Path(signed.__file__).read_text(encoding="utf-8").rstrip()
    return SCRIPT.format(
        id=experiment_id,
        minutes=most_minutes,
        folder=FOLDER,
        config=json.dumps(asdict(head_config(experiment_id, wanted)), indent=1),
        signed=source,
        region=wanted.region,
        bucket=wanted.bucket,
        code=code_key(code_sha256),
        sha256=code_sha256,
    )


def head_config(experiment_id: str, wanted: Wanted) -> HeadConfig:
    """What the head is told."""
    return HeadConfig(
        region=wanted.region,
        bucket=wanted.bucket,
        run=run_prefix(experiment_id),
        archives=f"{PREFIX}environments/",
        folder=FOLDER,
        groups=(group_of(experiment_id, HEAD),),
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
