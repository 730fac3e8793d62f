"""`ems import` as somebody uses it: what is stored, what is told, what is refused before anything is registered."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

import ems
from ems.base.errors import Busy
from ems.databases import State
from ems.importing.storing import alone
from tests.cli.running import files, run
from tests.conftest import commit, registered
from tests.importing.bringing import CSV, STORED, bring, experiments, newest, refused, rows, write


def test_a_file_becomes_a_finished_experiment(lab):
    write("old/runs.csv", CSV)
    told = bring("old/runs.csv", "--as", "phase-1", "--parameters", "k,m", "--commit", "abcdef1", "--project", "first")
    assert (told["done"], told["stack"], told["results_table"]) == ("imported", "phase-1", "phase_1")
    found = newest(lab, "phase-1")
    row = found.registration
    assert (found.state, found.rows_stored, found.points_done) == (State.SUCCEEDED, 3, 1)
    assert (row.commit, row.project, row.funding, row.experimenter) == ("abcdef1", "first", "unknown", "unknown")
    assert {row.environment, row.python, row.tree, row.environment_digest} == {"unknown"} and row.imported
    assert rows(lab, "phase-1") == STORED
    imported = told["imported"]
    assert list(imported["columns"]) == ["k", "m", "rate", "label", "ok"] and imported["parameters"] == ["k", "m"]
    assert imported["source"] == "old/runs.csv" and imported["date"] == "unknown" and imported["rows"] == 3
    assert imported["sha256"] == hashlib.sha256(CSV.encode()).hexdigest() and imported["content"] == "file"


def test_everything_tells_that_it_was_imported(lab):
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase", "--title", "A phase transition", "--date", "2024-03")
    assert "imported" in run("status").stdout
    one = " ".join(run("status", "phase").stdout.split())
    assert "A phase transition" in one and "imported 3 rows of runs.csv" in one and "date 2024-03" in one
    assert "commit unknown" in one and "funding unknown" in one
    (status,) = json.loads(run("status", "phase", "--json").stdout)
    assert (status["state"], status["cluster"], status["commit"]) == ("succeeded", "imported", "unknown")
    assert status["imported"]["source"] == "runs.csv"
    assert "imported from runs.csv" in run("results", "phase").stdout
    assert "imported from runs.csv" in run("results", "phase", "--format", "csv").stderr
    assert run("logs", "phase").stdout.startswith("imported 3 rows of runs.csv")
    assert "phase: imported · 3 rows" in run("watch").stdout
    assert "no point failed" in run("failures", "phase").stdout
    assert "Nothing to stop" in run("stop", "phase").stderr
    assert "SELECT" in run("read", "phase", "--snippet", "sql").stdout
    frame = ems.results("phase")
    assert frame.attrs["imported"]["source"] == "runs.csv" and list(frame["m"]) == [10, 10, 20]
    assert repr(ems.progress("phase")).startswith("phase: imported")


def test_other_experiments_are_not_told_as_imported(lab):
    registered(lab)
    (status,) = json.loads(run("status", "--json").stdout)
    assert status["imported"] is None


def test_twice_is_once_and_what_is_learned_later_is_added(lab):
    path = write("runs.csv", CSV)
    first = bring("runs.csv", "--as", "phase", "--date", "2024")
    shutil.copy(path, "again.csv")
    second = bring("again.csv", "--as", "phase", "--commit", "abcdef1", "--title", "Known")
    assert second["done"] == "already imported" and second["experiment_id"] == first["experiment_id"]
    now = second["imported"]
    assert (now["date"], now["commit"], now["title"], now["source"]) == ("2024", "abcdef1", "Known", "runs.csv")
    assert len(experiments(lab)) == 1 and newest(lab, "phase").attempt == 1
    assert newest(lab, "phase").registration.commit == "abcdef1"
    assert rows(lab, "phase") == STORED
    shown = run("import", "runs.csv", "--as", "phase").stdout
    assert "already, nothing was stored" in shown


def test_other_content_under_the_same_name_is_refused_with_the_way_out(lab):
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase")
    before = experiments(lab)
    write("runs.csv", CSV + "30,1,2,x,TRUE\n")
    said = refused("runs.csv", "--as", "phase")
    assert "phase is imported already, from other content" in said and "--as phase-2" in said
    assert "read otherwise" in refused("runs.csv", "--as", "phase", "--type", "m=text")
    assert experiments(lab) == before
    run("import", "runs.csv", "--as", "phase-2")
    assert rows(lab, "phase-2")["m"] == [10, 10, 20, 30] and rows(lab, "phase") == STORED


def test_a_plan_shows_columns_types_and_rows_and_changes_nothing(lab):
    write("runs.csv", CSV + "30,1,2.5,x,TRUE\n" * 5)
    before = files(lab.root)
    shown = run("import", "runs.csv", "--as", "phase", "--dry-run", "--parameters", "k").stdout
    assert "Would import phase" in shown and "8 rows of runs.csv" in shown and "Nothing was changed" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["k", "int64", "parameter"] in lines and ["rate", "float64"] in lines and ["ok", "bool"] in lines
    planned = bring("runs.csv", "--as", "phase", "--dry-run")
    assert planned["done"] == "planned" and planned["imported"]["rows"] == 8
    assert experiments(lab) == [] and files(lab.root).keys() == before.keys()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["none.csv", "--as", "x"], "none.csv does not exist"),
        (["runs.csv", "--as", "-x"], "--as is"),
        (["runs.csv", "--as", "pi"], "pi is the name of a stack file: stacks/Pulumi.pi.yaml"),
        (["runs.csv", "--as", "PI"], "pi is the name of a stack file"),
        (["runs.csv", "--as", "x", "--into", "experiment"], "the database keeps that name for itself"),
        (["runs.csv", "--as", "x", "--commit", "main"], '--commit is "main": that is not a hash'),
        (["runs.csv", "--as", "x", "--date", "yesterday"], "that is not a date"),
        (["runs.csv", "--as", "x", "--date", "2024-02-30"], "that is not a date"),
        (["runs.csv", "--as", "x", "--project", "frist"], '--project is "frist", which the lab does not have'),
        (["runs.csv", "--as", "x", "--funding", "nsf"], "There are: unfunded"),
        (["runs.csv", "--as", "x", "--parameters", "k,mm"], '--parameters names "mm", which is not a column'),
        (["runs.csv", "--as", "x", "--type", "q=text"], '--type names "q", which is not a column'),
        (["runs.csv", "--as", "x", "--type", "k=string"], 'is "string": allowed are boolean'),
        (["runs.csv", "--as", "x", "--type", "k"], "that is not a pair"),
        (["runs.csv", "--as", "x", "--rename", "q=r"], '--rename names "q"'),
        (["runs.csv", "--as", "x", "--delimiter", "ab"], "cannot stand between cells"),
        (["runs.csv", "--as", "x", "--delimiter", ";"], "--delimiter comma"),
        (["runs.csv", "--as", "x", "--table", "t"], "--table is given, which means nothing"),
        (["runs.txt", "--as", "x"], "--delimiter tab"),
        (["header.csv", "--as", "x"], "has no rows"),
        (["bad.csv", "--as", "x"], "bad.csv:4: column 'b' is of type number, and \"oops\" is not"),
        (["bad.csv", "--as", "x"], "--type 'b=text'"),
        (["semicolons.csv", "--as", "x"], "--delimiter semicolon"),
        (["numbers.csv", "--as", "x"], "the header has numbers"),
        (["reserved.csv", "--as", "x"], "--rename 'row=row_'"),
        (["cases.csv", "--as", "x"], "differ only by case"),
        (["mysql://h/d", "--as", "x"], "is not a source that can be read"),
        (["folder", "--as", "x"], "has files of several kinds"),
        (["empty", "--as", "x"], "has no file that ends in .csv"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_registered(lab, words, problem):
    write("runs.csv", CSV)
    write("runs.txt", CSV)
    write("header.csv", "a,b\n")
    write("bad.csv", "a,b\n1,2\n2,3\n3,oops\n")
    write("semicolons.csv", "a;b\n1;2\n")
    write("numbers.csv", "1,2\n3,4\n")
    write("reserved.csv", "row,b\n3,4\n")
    write("cases.csv", "b,B\n3,4\n")
    write("folder/a.csv", CSV)
    write("folder/b.jsonl", "{}")
    write("empty/readme", "")
    assert problem in refused(*words)
    assert experiments(lab) == []


def test_a_table_with_other_columns_is_refused_before(lab):
    write("runs.csv", CSV)
    write("other.csv", "m,label\none,2\n")
    run("import", "runs.csv", "--as", "phase")
    said = refused("other.csv", "--as", "other", "--into", "phase", expect=4)
    assert "results table 'phase': column 'm' is int64 and cannot take text" in said
    assert [found.registration.stack for found in experiments(lab)] == ["phase"]
    run("import", "other.csv", "--as", "other")
    write("more.csv", "m,extra\n5,0.5\n")
    run("import", "more.csv", "--as", "more", "--into", "phase")
    assert rows(lab, "more")["extra"] == [0.5] and rows(lab, "phase")["m"] == [10, 10, 20]


def test_the_name_of_an_experiment_that_has_run_is_refused(lab):
    registered(lab)
    (lab.root / "stacks/Pulumi.pi.yaml").unlink()
    write("runs.csv", CSV)
    assert "pi is the name of an experiment that EMS has run" in refused("runs.csv", "--as", "pi")


def test_up_of_an_imported_name_runs_nothing(lab):
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase")
    assert "phase was imported: there is nothing to run" in run("up", "phase").stderr
    (told,) = json.loads(run("up", "phase", "--json").stdout)
    assert told["imported"]["rows"] == 3 and told["state"] == "succeeded"


def test_a_stack_file_of_an_imported_name_is_refused(lab):
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase")
    pi = lab.root / "stacks/Pulumi.pi.yaml"
    (lab.root / "stacks/Pulumi.phase.yaml").write_text(pi.read_text())
    commit(lab.root)
    checked = run("check", "phase", expect=2).stdout
    assert "phase is the name of imported rows" in checked and "git mv stacks/Pulumi.phase.yaml" in checked


def test_renamed_columns_and_types_that_are_said(lab):
    write("runs.csv", "row,zip,Zip\n5,01234,1\n6,501,2\n")
    words = ["--rename", "row=run", "--rename", "Zip=number", "--type", "zip=text", "--parameters", "run"]
    told = bring("runs.csv", "--as", "phase", *words)
    assert told["imported"]["columns"] == {"run": "int64", "zip": "text", "number": "int64"}
    found = rows(lab, "phase")
    assert (found["run"], found["zip"], found["number"]) == ([5, 6], ["01234", "501"], [1, 2])


def test_two_commands_at_once_on_one_machine(lab):
    write("runs.csv", CSV)
    planned = bring("runs.csv", "--as", "phase", "--dry-run")
    with alone(lab, planned["experiment_id"], "phase"):
        assert "Another command is importing phase" in refused("runs.csv", "--as", "phase", expect=Busy.exit_code)
    assert bring("runs.csv", "--as", "phase")["done"] == "imported"
