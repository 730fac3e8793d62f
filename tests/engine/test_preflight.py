"""What `ems check` finds, and what `ems up` refuses before anything is made."""

from __future__ import annotations

import dataclasses

import pytest

from ems import clusters
from ems.base.errors import EmsError, ProvenanceError, StackFileError, UserError
from ems.engine import lifecycle, preflight
from ems.lab.stacks import StackFiles
from ems.provenance import building
from ems.stack import stackfile
from tests.conftest import commit

SHA = "0" * 64


def change(here, stack="pi", **replacements):
    file = here.stack_file(stack)
    text = file.read_text()
    for old, new in replacements.items():
        assert f"{old}: " in text
        lines = [f"{line.split(old)[0]}{old}: {new}" if f" {old}: " in line else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    file.write_text(text)


def said(here, stack="pi", code=0):
    found = preflight.report(StackFiles(here, clusters.settings()), stack)
    assert found.exit_code == code and bool(found.problems) is bool(code), found
    if code:
        with pytest.raises(EmsError):
            preflight.require(StackFiles(here, clusters.settings()), stack)
    return "\n".join(found.problems)


def test_a_sound_stack_has_the_id_that_up_registers(here):
    assert (
        preflight.report(StackFiles(here, clusters.settings()), "lab").summary == "lab"
        and preflight.require(StackFiles(here, clusters.settings()), "lab") is None
    )
    assert said(here) == ""
    row = preflight.require(StackFiles(here, clusters.settings()), "pi").row
    assert preflight.report(StackFiles(here, clusters.settings()), "pi").summary == f"experiment {row.id}"
    assert (row.cluster, row.environment) == ("laptop", "pi")


def test_unknown_references_stand_with_their_lines(here):
    change(here, project="frist", experimenter="you", funding="nobody")
    commit(here.root)
    text = said(here, code=2)
    for part in ("Pulumi.pi.yaml:4: ems:experiment.project", '"frist"', "did you mean first?", '"you"', '"nobody"'):
        assert part in text


def test_faults_of_all_sorts_are_told_together(here):
    change(here, project="frist")
    (here.root / "environments/pi/requirements.txt").write_text("numpy\n")
    text = said(here, code=3)
    assert "frist" in text and "Not as in the last commit" in text and "'numpy' is not pinned" in text


@pytest.mark.parametrize("lock", ["uv.lock", "../uv.lock"])
def test_a_lock_that_is_not_there_is_told(here, lock):
    change(here, environment=f"{{lock: {lock}}}")
    commit(here.root)
    assert f'ems:experiment.environment.lock: is "{lock}", which is not there' in said(here, code=2)


def test_a_dirty_tree_and_code_that_is_not_there(here):
    (here.root / "experiments/pi/main.py").write_text("edited")
    assert "M experiments/pi/main.py" in said(here, code=3)
    commit(here.root)
    change(here, paths="[experiments/nosuch]")
    commit(here.root)
    shown = said(here, code=3)
    assert "Pulumi.pi.yaml:8: ems:experiment.code.paths[0]: code.paths has 'experiments/nosuch': not in commit" in shown


@pytest.mark.parametrize(
    "lock, fault",
    [("numpy\n", "'numpy' is not pinned"), ("a==1\n", "no --hash"), ("-e .\n", "'-e' is not allowed in a lock")],
)
def test_an_unpinned_lock_is_an_error(lock, fault, here):
    (here.root / "environments/pi/requirements.txt").write_text(f"# made by hand\n{lock}")
    commit(here.root)
    text = said(here, code=3)
    assert text.count(fault) == 1 and "environments/pi/requirements.txt:2" in text


@pytest.mark.parametrize("version", ["2.7", "3.8", "three"])
def test_a_python_that_cannot_be_is_an_error(version, here):
    (here.root / "environments/pi/python-version").write_text(version)
    commit(here.root)
    assert f"python-version:1: is '{version}': allowed is" in said(here, code=3)


def test_a_missing_environment_is_an_error(here):
    change(here, environment="nosuch")
    commit(here.root)
    found = said(here, code=2)
    assert 'Pulumi.pi.yaml:9: ems:experiment.environment: is "nosuch", which the lab does not have' in found
    assert found.count("nosuch") == 1


def test_rendering_libraries_are_only_warned_of(here):
    (here.root / "environments/pi/requirements.txt").write_text(f"matplotlib==3.9.0 --hash=sha256:{SHA}\n")
    commit(here.root)
    assert said(here) == ""
    (warning,) = preflight.report(StackFiles(here, clusters.settings()), "pi").warnings
    assert "matplotlib" in warning and "renders" in warning


def test_a_cluster_that_is_another_stack(here):
    text = here.stack_file("pi").read_text().replace("kind: laptop", "stack: sherlock")
    here.stack_file("pi").write_text(text)
    commit(here.root)
    shown = said(here, code=2)
    assert 'Pulumi.pi.yaml:18: ems:experiment.cluster.stack: is "sherlock"' in shown and "none yet" in shown
    here.stack_file("sherlock").write_text("config:\n  ems:cluster:\n    kind: laptop\n")
    commit(here.root)
    assert said(here) == "" and said(here, "sherlock") == ""
    resolved = preflight.require(StackFiles(here, clusters.settings()), "pi")
    assert resolved and resolved.row.cluster == "sherlock"
    here.stack_file("pi").write_text(text.replace("sherlock", "sherlok"))
    commit(here.root)
    assert "did you mean sherlock? allowed are sherlock" in said(here, code=2)


def test_a_broken_lab_file_is_told_once_where_it_is(here):
    here.stack_file("lab").write_text("config: [\n")
    assert said(here) == ""
    assert "Pulumi.lab.yaml" in said(here, "lab", code=2)


def test_what_up_refuses_is_the_first_fault(here):
    with pytest.raises(StackFileError, match="did you mean pi"):
        preflight.require(StackFiles(here, clusters.settings()), "pii")
    (here.root / "experiments/pi/new.py").touch()
    with pytest.raises(ProvenanceError, match="git add"):
        preflight.require(StackFiles(here, clusters.settings()), "pi")
    here.plugin().unlink()
    with pytest.raises(UserError, match="plugins"):
        preflight.require(StackFiles(here, clusters.settings()), "pi")


def test_the_order_is_lab_places_experiments(here):
    here.stack_file("sherlock").write_text("config:\n  ems:cluster:\n    kind: laptop\n")
    assert [preflight.rank(StackFiles(here, clusters.settings()), stack) for stack in ("lab", "sherlock", "pi")] == [
        0,
        1,
        2,
    ]


def test_a_command_reads_each_stack_file_once(here, monkeypatch):
    opened = []
    read = stackfile.read
    monkeypatch.setattr(stackfile, "read", lambda path: opened.append(path.name) or read(path))
    stacks = StackFiles(here, clusters.settings())
    assert lifecycle.in_order(stacks, here.stacks()) == ["lab", "pi"]
    assert preflight.require(stacks, "lab") is None
    assert preflight.require(stacks, "pi")
    preflight.require_inputs(stacks, "pi")
    assert preflight.report(stacks, "pi").exit_code == 0
    assert sorted(opened) == ["Pulumi.lab.yaml", "Pulumi.pi.yaml"]


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgres://db/lab", "Did you mean postgresql://db/lab?"),
        ("mysql://db/lab", "Allowed: bigquery://…, dynamodb://…, postgresql://…, sqlite://…"),
        ("ems.db", "sqlite:///ems.db"),
        ("", "sqlite:///.ems/ems.db"),
        ("sqlite://x", "sqlite:///"),
        ("postgresql://me:secret@db/lab", "~/.pgpass"),
    ],
)
def test_the_databases_address_is_read_before_anything_is_made(here, url, hint):
    wrong = dataclasses.replace(here, database_url=url)
    report = preflight.report(StackFiles(wrong, clusters.settings()), "lab")
    assert report.exit_code == 2 and hint in "\n".join(report.problems)
    assert "me:secret" not in "\n".join(report.problems)


def test_faults_of_keys_hide_no_others(here):
    change(here, title="3", project="frist", environment="pie", max_hours="-1", command="[]", paths="[a b, nosuch]")
    (here.root / "environments/pi/requirements.txt").unlink()
    text = said(here, code=3)
    for part in ("title: is the number 3", "max_hours: is -1", "did you mean first?", "did you mean pi?"):
        assert part in text
    assert "'nosuch': not in commit" in text and "git add" not in text
    change(here, environment="pi")
    text = said(here, code=3)
    for part in ("title: is the number 3", "did you mean first?", "has no requirements.txt", "'nosuch': not in commit"):
        assert part in text


def test_a_misspelt_key_is_one_fault(here):
    file = here.stack_file("pi")
    text = file.read_text()
    file.write_text(text.replace("funding: unfunded", "fundng: unfunded"))
    found = said(here, code=2)
    assert "fundng: is not a key here: did you mean funding?" in found and "is missing" not in found
    file.write_text(text.replace("command:", "comand:"))
    found = said(here, code=2)
    assert "ems:experiment.job: has comand, which is not a key here: did you mean command?" in found


def warned(here, stack="pi"):
    return "\n".join(preflight.report(StackFiles(here, clusters.settings()), stack).warnings)


def test_what_looks_like_a_placeholder_of_a_single_command_is_told(here):
    change(here, command="[python, a.py, '{result}/a', '{lr}', '{{lr}}', '{results}', '${HOME}', 'awk {print} b']")
    commit(here.root)
    assert warned(here).count("which the program gets as it stands") == 2
    assert "has {result}, " in warned(here) and "has {lr}, " in warned(here)


@pytest.mark.parametrize(
    "file, text, said_of_it",
    [
        ("requirements.txt", f"a==1 --hash=sha256:{SHA}\nA==2 --hash=sha256:{SHA}\n", "requirements.txt:2: pins A==2"),
        ("python-version", "3.99", "is '3.99', which uv neither knows nor finds here"),
        ("python-version", "٣.١١", "python-version:1: is '٣.١١'"),
        ("python-version", ">=3.11", "python-version:1: is '>=3.11'"),
        ("python-version", "3.11 # main", "python-version:1: is '3.11 # main'"),
    ],
)
def test_an_environment_that_cannot_be_built_is_told_before_anything_is_registered(file, text, said_of_it, here):
    (here.root / "environments/pi" / file).write_text(text)
    commit(here.root)
    found = preflight.report(StackFiles(here, clusters.settings()), "pi")
    assert said_of_it in "\n".join(found.problems) and found.exit_code == 3


def test_versions_for_different_machines_are_no_fault(here):
    lines = [
        f"a==1 ; sys_platform == 'linux' --hash=sha256:{SHA}",
        f"a==2 ; sys_platform != 'linux' --hash=sha256:{SHA}",
    ]
    (here.root / "environments/pi/requirements.txt").write_text("\n".join(lines))
    commit(here.root)
    assert said(here) == ""


def test_a_sweep_needs_dask_in_its_environment_and_a_function_that_is_there(here):
    file = here.stack_file("pi")
    job = file.read_text().partition("      command")[0] + "      function: model:f\n      sweep: {x: [1, 2]}\n"
    file.write_text(job + "    results: {table: pi}\n")
    commit(here.root)
    assert "requirements.txt: has no dask and no distributed, which a sweep needs" in said_at_run(here, 3)
    lock = "".join(f"{name}==2025.1.0 --hash=sha256:{SHA}\n" for name in ("dask", "distributed"))
    (here.root / "environments/pi/requirements.txt").write_text(lock)
    (here.root / "experiments/pi/model.py").write_text("def f(y): ...\n")
    file.write_text(file.read_text().replace("model:f", "experiments.pi.model:f"))
    commit(here.root)
    found = said_at_run(here, 2)
    assert (
        "Pulumi.pi.yaml:12: ems:experiment.job.sweep.x: is not a parameter of f in experiments/pi/model.py:1" in found
    )


def said_at_run(here, code):
    """What `ems check` says, and `ems up` before anything is made, of an experiment that is to run."""
    stacks = StackFiles(here, clusters.settings())
    resolved = preflight.require(stacks, "pi")
    with pytest.raises(EmsError) as caught:
        preflight.require_sources(stacks, "pi", resolved)
    found = preflight.report(stacks, "pi")
    assert caught.value.exit_code == found.exit_code == code
    assert str(caught.value).splitlines()[0] in found.problems
    return "\n".join(found.problems)


def test_a_program_outside_of_the_code_paths_is_named_with_its_line(here):
    change(here, command="[python, experiments/pi/man.py]")
    commit(here.root)
    assert 'Pulumi.pi.yaml:11: ems:experiment.job.command: runs "experiments/pi/man.py"' in said_at_run(here, 2)


def test_what_was_not_checked_or_has_no_effect_is_a_warning(here):
    assert warned(here) == ""
    change(here, kind="laptop\n      workers: 3")
    here.stack_file("lab").write_text("config: [\n")
    commit(here.root)
    assert "(first, me, unfunded) were not checked" in warned(here)
    assert "cluster.workers is 3, which a program does not use" in warned(here)


def test_wishes_that_the_lock_does_not_have_are_hints_in_check_and_faults_of_a_new_lock(here):
    folder = here.root / "environments/pi"
    (folder / "requirements.txt").write_text(f"numpy==1.26 --hash=sha256:{SHA}\n")
    (folder / "requirements.in").write_text("# x\n--extra-index-url https://x.org/simple\nscipy\nnumpy>=2\n-r a.in\n")
    commit(here.root)
    found = warned(here)
    assert "requirements.in:2: '--extra-index-url' would hold" in found and "UV_INDEX" in found
    assert "requirements.in:3: wishes scipy, which the lock does not have; write it again: ems env lock pi" in found
    assert "requirements.in:4: wishes numpy>=2, but the lock has 1.26" in found and found.count("\n") == 2
    with pytest.raises(ProvenanceError, match=r"requirements.in:2: '--extra-index-url'"):
        building.lock(folder)
    assert said(here) == ""
