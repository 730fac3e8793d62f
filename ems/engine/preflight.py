"""Everything about a stack that can be known to be wrong before anything is created."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from shlex import quote
from typing import TypeVar

from pydantic import ValidationError

from ems import clusters, databases, stores
from ems.base import filesystems
from ems.base.errors import DatabaseError, EmsError, Fault, ProvenanceError, StackFileError, UserError
from ems.base.messages import Say, counted, show, some
from ems.clusters import pull
from ems.databases import Experiment, Registration
from ems.engine.where import Where, is_by_ssh, where_of
from ems.lab import Lab, imports
from ems.lab.stacks import StackFiles, locating
from ems.provenance import code as provenance
from ems.provenance import difference, environment, inputs, pins, sources
from ems.provenance.registration import Resolved, resolve, shared_points
from ems.stack import hints, spec, stackfile
from ems.stack.keys import placed
from ems.stack.models import ClusterSpec, CodeSpec, CommandJob, ExperimentSpec, LabSpec, LockSpec, Spec, SweepJob

RANKS = (LabSpec, ClusterSpec, ExperimentSpec)
EXPERIMENT = RANKS.index(ExperimentSpec)
T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What `ems check` says of one stack. `exit_code`: the greatest of its problems' errors, 0 without one.

    `needs`: the rights that a persistent place takes.
    """

    stack: str
    summary: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0
    needs: tuple[str, ...] = ()


def report(stacks: StackFiles, stack: str) -> Report:
    """All that is wrong with one stack, as a report: no EmsError is raised; changes nothing."""
    errors: list[EmsError] = []
    described = _noting(errors, lambda: stacks.spec(stack))
    _noting(errors, stacks.require_lab)
    _noting(errors, lambda: _check_address(stacks))
    if described is None:
        errors += _beside(stacks, stack)
        return Report(stack, "", _lines(errors), exit_code=max(error.exit_code for error in errors))
    warnings = tuple(_hints(stacks, stack, described))
    _noting(errors, lambda: _refuse_place(stacks, stack, described))
    summary = type(described).__name__.removesuffix("Spec").lower()
    if isinstance(described, ExperimentSpec):
        _noting(errors, lambda: _refuse_unknown(stacks, stack, described))
        where = _noting(errors, lambda: where_of(stacks, stack, described)) or Where("laptop", clusters.place("laptop"))
        resolved = None
        if described.code.commit == "HEAD" and _lacks_environment(stacks, described.environment):
            _noting(errors, lambda: _refuse_code(stacks, stack, described.code, described.environment))
            _noting(errors, lambda: _refuse_lock(stacks, stack, described.environment))
        else:
            resolved = _noting(errors, lambda: _resolved(stacks, stack, described, where))
        errors += _input_errors(stacks, stack, described, resolved)
        warnings += (*_unchecked(stacks, described), *_environment(stacks, described, errors))
        if resolved:
            warnings += pins.check(resolved.environment).warnings if resolved.environment.file else ()
            _noting(errors, lambda: require_sources(stacks, stack, resolved))
            errors += _imported(stacks.lab, stack)
            warnings += tuple(filter(None, [why_new(stacks, stack, resolved)]))
            summary += _about(described, resolved.row)
    gravest = max((error.exit_code for error in errors), default=0)
    return Report(stack, summary, _lines(errors), warnings, gravest, tuple(clusters.needs(stacks.lab, described)))


def _check_address(stacks: StackFiles) -> None:
    stacks.once("address", lambda: databases.check_address(stacks.lab.database_url, stacks.lab.root))
    stacks.once("store", lambda: stores.check_address(stacks.lab.store_url, stacks.lab.root))


def _environments(stacks: StackFiles) -> list[str]:
    """Names of the lab's environments."""
    return stacks.once("environments", lambda: environment.names(stacks.lab.root))


def _lacks_environment(stacks: StackFiles, chosen: str | LockSpec) -> bool:
    """Whether the working tree does not have the environment that a stack file names."""
    if isinstance(chosen, str):
        return chosen not in _environments(stacks)
    return not (stacks.lab.root / chosen.lock).is_file()


def _refuse_lock(stacks: StackFiles, stack: str, chosen: str | LockSpec) -> None:
    """A folder that is not there is told among the references."""
    if isinstance(chosen, str):
        return
    problem = f"is {show(chosen.lock)}, which is not there: allowed is a lock by its path from the lab's folder"
    with locating(stacks.lab, stack):
        raise StackFileError([Fault("ems:experiment.environment.lock", problem)])


def _beside(stacks: StackFiles, stack: str) -> list[EmsError]:
    """What else is wrong with an experiment whose file has faults: its references, its code, its environment."""
    errors: list[EmsError] = []
    try:
        file = stacks.file(stack)
    except StackFileError:
        return errors
    if file.kind != "experiment" or not isinstance(file.data, dict):
        return errors
    if faults := stackfile.references(file.data, _known(stacks)):
        errors.append(StackFileError(placed(faults, file.path, file.lines)))
    name, given = file.data.get("environment"), file.data.get("code", {})
    if isinstance(name, str) and name in _environments(stacks):
        _pinned(stacks, name, errors)
    try:
        code = CodeSpec.model_validate(given)
    except ValidationError:
        return errors
    if code.repo is None:
        _noting(errors, lambda: provenance.at_commit(stacks.tree, code))
    return errors


def _refuse_code(stacks: StackFiles, stack: str, code: CodeSpec, chosen: str | LockSpec) -> None:
    file, needed = stacks.lab.stack_file(stack), environment.sources(chosen)
    provenance.resolve(stacks.tree, code, environment=needed, stack_file=file, remote_needed=False)


def strays(lab: Lab) -> Iterator[Report]:
    """A report for each file that looks like a stack file, and is read by nobody."""
    for file, right in lab.strays().items():
        here, there = (path.relative_to(lab.root) for path in (file, right))
        fix = f", which is there too: rm {quote(str(here))}" if right.exists() else f"; mv {quote(str(here))} {there}"
        problem = f"{here}: is read by nobody: allowed is {there}{fix}"
        stack = right.name.removeprefix("Pulumi.").removesuffix(".yaml")
        yield Report(stack, "", (problem,), exit_code=UserError.exit_code)


def _about(described: ExperimentSpec, row: Registration) -> str:
    shared = shared_points(described, row)
    points = counted(row.points_total, "point")
    once = f", {points}: {shared:,} that several grids have are counted once" if shared else ""
    return f" {row.id}{once}"


def _input_errors(
    stacks: StackFiles, stack: str, described: ExperimentSpec, resolved: Resolved | None
) -> list[EmsError]:
    """Only where something is wrong with them the database is asked whether they are needed, if it answers."""
    errors: list[EmsError] = []
    _noting(errors, lambda: require_inputs(stacks, stack))
    if errors and resolved and _is_finished(stacks.lab, resolved.row.id):
        errors.clear()
        _noting(errors, lambda: _refuse_inputs(stacks, stack, described, needed=False))
    return errors


def _imported(lab: Lab, stack: str) -> list[EmsError]:
    """That the name is one of imported rows, if the database answers."""
    errors: list[EmsError] = []
    _noting(errors, lambda: refuse_imported(lab, stack))
    return [error for error in errors if isinstance(error, UserError)]


def _is_finished(lab: Lab, experiment_id: str) -> bool:
    with lab.database() as database:
        experiment = _noting([], lambda: database.experiment(experiment_id))
    return experiment is not None and experiment.state.finished


def _noting(errors: list[EmsError], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except EmsError as error:
        errors.append(error)
        return None


def require(stacks: StackFiles, stack: str) -> Resolved | None:
    """What `ems up` would register and run; None for a stack that is not an experiment.

    Raises the first error: UserError, StackFileError or ProvenanceError. Whether inputs are there is asked by
    `require_inputs`: one that is finished needs none.
    """
    stacks.require_lab()
    described = stacks.spec(stack)
    _refuse_place(stacks, stack, described)
    if not isinstance(described, ExperimentSpec):
        return None
    _refuse_unknown(stacks, stack, described)
    return _resolved(stacks, stack, described, where_of(stacks, stack, described))


def _resolved(stacks: StackFiles, stack: str, described: ExperimentSpec, where: Where) -> Resolved:
    _refuse_file(stacks, stack, described)
    kind, remote_needed = where.kind, where.place.needs_remote
    with locating(stacks.lab, stack):
        described = spec.at(described, kind, clusters.settings())
        known = partial(_is_known, stacks.lab)
        return resolve(stacks.lab, stacks.tree, stack, described, kind, remote_needed=remote_needed, is_known=known)


def _refuse_place(stacks: StackFiles, stack: str, described: Spec) -> None:
    """UserError for settings that name no machine, or a place that does not reach the lab's database."""
    clusters.host(described, stack)
    if isinstance(described, ClusterSpec):
        _refuse_file(stacks, stack, described)


def _refuse_file(stacks: StackFiles, stack: str, described: ExperimentSpec | ClusterSpec) -> None:
    """UserError if other machines are to store into a database that is a file of this one, and nothing fetches that."""
    where = where_of(stacks, stack, described)
    if not pull.is_needed(stacks.lab) or not where.place.needs_server:
        return
    if not (where.place.fetches_rows and is_by_ssh(stacks, stack, described)):
        raise UserError(
            f"ems:database is {stacks.lab.database_url}, a file, which machines of kind {where.kind} do not reach.",
            "Use postgresql://, bigquery:// or dynamodb:// in Pulumi.yaml; `ems database copy` brings the rows along.",
        )


def _is_known(lab: Lab, experiment_id: str) -> bool:
    """Whether it is registered, as far as the database can say now; what needs the database says so itself."""
    with lab.database() as database:
        return _noting([], lambda: database.experiment(experiment_id)) is not None


def why_new(stacks: StackFiles, stack: str, resolved: Resolved) -> str:
    """Why a stack that has run is another experiment now; "" if it is not, or never ran, or that cannot be known."""
    found: list[Experiment] = []
    with stacks.lab.database() as database, suppress(DatabaseError):
        if database.experiment(resolved.row.id) is None:
            found = database.newest([stack], also=["spec"])
    if not found or found[0].registration.imported:
        return ""
    return difference.told(stacks.tree, resolved, found[0].registration)


def refuse_imported(lab: Lab, stack: str) -> None:
    """UserError if a new experiment has the name of rows that were imported; DatabaseError."""
    with lab.database() as database:
        imports.refuse(database, stack)


def require_inputs(stacks: StackFiles, stack: str) -> None:
    """StackFileError if an input on this machine is not there: for an experiment that is to run."""
    described = stacks.spec(stack)
    if isinstance(described, ExperimentSpec):
        _refuse_inputs(stacks, stack, described, needed=True)


def require_sources(stacks: StackFiles, stack: str, resolved: Resolved) -> None:
    """An EmsError for what the job's own files, and its environment, show to be impossible: for one that is to run."""
    described = stacks.spec(stack)
    if not isinstance(described, ExperimentSpec):
        return
    lacking = [pins.lacks_python(resolved.environment)]
    lacking += [pins.lacks_dask(resolved.environment)] if isinstance(described.job, SweepJob) else []
    if found := [each for each in lacking if each]:
        raise ProvenanceError("\n".join(found))
    with locating(stacks.lab, stack):
        sources.refuse(stacks.tree.objects(resolved.code.git_dir), resolved.code, described, resolved.environment)


def refuse_settings(stacks: StackFiles, stack: str, resolved: Resolved) -> None:
    """UserError if its place would not take a new experiment as it is described."""
    described = stacks.spec(stack)
    if isinstance(described, ExperimentSpec):
        where_of(stacks, stack, described).place.refuse(stacks.lab, resolved.row)


def require_store(stacks: StackFiles, stack: str, say: Say) -> None:
    """For an experiment that is to run: UserError if its machines do not reach the lab's store, StoreError if that
    cannot be written."""
    described = stacks.spec(stack)
    if isinstance(described, ExperimentSpec):
        where = where_of(stacks, stack, described)
        shares = where.place.shares_files and not is_by_ssh(stacks, stack, described)
        _refuse_own_folder(stacks.lab, where, shares=shares)
        stacks.lab.make_store_ready(say)


def _refuse_own_folder(lab: Lab, where: Where, *, shares: bool) -> None:
    """UserError if other machines are to store into a folder of this one.

    `shares`: whether they see the file system of the lab's own folder. Where rows are fetched, so are files.
    """
    folder = lab.store().folder
    if folder is None or not where.place.needs_server or (where.place.fetches_rows and pull.is_needed(lab)):
        return
    if not shares:
        raise UserError(
            f"ems:store is {lab.store_url}, a folder, which machines of kind {where.kind} do not see.",
            "Name a store that they reach as ems:store in Pulumi.yaml: gs://BUCKET/PREFIX or s3://BUCKET/PREFIX.",
        )
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.stat().st_dev != lab.root.stat().st_dev and not filesystems.network(there):
        raise UserError(
            f"ems:store is {lab.store_url}, on a disk of this machine, which machines of kind {where.kind} do not see.",
            "Name a folder on the shared file system, as the default .ems/store in the lab's, or gs:// or s3://.",
        )


def build_environment(stacks: StackFiles, stack: str, resolved: Resolved, say: Say) -> None:
    """ProvenanceError if the environment of a new experiment cannot be built, where that is done on this machine."""
    described = stacks.spec(stack)
    if isinstance(described, ExperimentSpec):
        where_of(stacks, stack, described).place.build(resolved.environment, say)


def _refuse_inputs(stacks: StackFiles, stack: str, described: ExperimentSpec, *, needed: bool) -> None:
    with locating(stacks.lab, stack):
        inputs.refuse(stacks.lab.root, described, needed=needed)


def rank(stacks: StackFiles, stack: str) -> int:
    """0 for the lab, 1 for a place, 2 for an experiment; StackFileError if the file has faults."""
    return RANKS.index(type(stacks.spec(stack)))


def _refuse_unknown(stacks: StackFiles, stack: str, described: ExperimentSpec) -> None:
    """References are looked up in the lab's stack file: what it says is what `ems up` of it will register."""
    known = _known(stacks)
    if described.code.commit != "HEAD" and described.code.repo is None:
        del known["environment"]  # it is that of the commit
    if faults := stackfile.references(described.model_dump(include=set(known)), known):
        with locating(stacks.lab, stack):
            raise StackFileError(faults)


def _known(stacks: StackFiles) -> dict[str, Collection[str]]:
    """The names that an experiment may refer to, by key: those of the lab's file as far as there is one."""
    known: dict[str, Collection[str]] = {"environment": _environments(stacks)}
    if laboratory := stacks.laboratory():
        known |= {
            "project": laboratory.projects,
            "experimenter": laboratory.experimenters,
            "funding": laboratory.funding,
        }
    return known


def _hints(stacks: StackFiles, stack: str, described: Spec) -> Iterator[str]:
    file = stacks.file(stack)
    found = list(hints.hints(described, file.odd, stacks.laboratory(), datetime.now(UTC).date()))
    yield from (str(fault) for fault in placed(found, file.path, file.lines))
    labs = sorted(stacks.lab_stacks())
    if isinstance(described, LabSpec) and len(labs) > 1:
        yield f"{len(labs)} stacks describe the lab ({', '.join(labs)}): {stacks.lab_stack()} counts for references"


def _unchecked(stacks: StackFiles, described: ExperimentSpec) -> Iterator[str]:
    """What could not be checked, and what has no effect."""
    if stacks.laboratory() is None:
        names = f"{described.project}, {described.experimenter}, {described.funding}"
        yield f"project, experimenter and funding ({names}) were not checked: no valid stack file describes the lab"
    ignored = _noting([], lambda: provenance.ignored(stacks.tree, described.code)) or []
    if ignored:
        yield f"code.paths hold what git ignores, and the job will not have: {some(ignored)}"
    workers = described.cluster.model_dump().get("workers")
    if workers and isinstance(described.job, CommandJob):
        yield f"ems:experiment.cluster.workers is {workers}, which a program does not use: only a sweep has workers"


def _environment(stacks: StackFiles, described: ExperimentSpec, errors: list[EmsError]) -> tuple[str, ...]:
    """Warnings about the environment as it is in the working tree; of an older `commit:` none."""
    name = described.environment
    if described.code.commit != "HEAD" or not isinstance(name, str) or name not in _environments(stacks):
        return ()
    pinned = _pinned(stacks, name, errors)
    return stacks.once(("hints", name), lambda: _pin_hints(stacks.lab, pinned)) if pinned else ()


def _pinned(stacks: StackFiles, name: str, errors: list[EmsError]) -> environment.Environment | None:
    folder = stacks.lab.root / "environments" / name
    pinned = _noting(errors, lambda: stacks.once(("pinned", name), lambda: environment.from_folder(folder)))
    if pinned is not None:
        _noting(errors, lambda: pins.refuse(pinned))
    return pinned


def _pin_hints(lab: Lab, pinned: environment.Environment) -> tuple[str, ...]:
    return (*pins.check(pinned).warnings, *pins.hints(lab.root / "environments" / pinned.name, pinned))


def _lines(errors: Sequence[EmsError]) -> tuple[str, ...]:
    """Each once: the commit and the working tree may have the same fault."""
    return tuple(dict.fromkeys(line for error in errors for line in str(error).splitlines()))
