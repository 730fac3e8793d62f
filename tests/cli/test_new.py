"""`ems new` for code that exists: a stack file that says what is there, and marks what people have to say."""

from __future__ import annotations

import json
import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ems import clusters
from ems.base.errors import StackFileError, UserError
from ems.cli import new_description as descriptions
from ems.cli import new_function as functions
from ems.cli import new_program as programs
from ems.cli import new_stack as stack
from ems.cli import yaml_text as text
from ems.engine import preflight
from ems.lab.stacks import StackFiles
from ems.stack import scalars, stackfile, yamlfile
from ems.sweep import Sweep
from tests.cli.running import execute, run
from tests.conftest import commit
from tests.importing.bringing import set_up


def described(lab, name):
    content, _ = yamlfile.read(lab.stack_file(name))
    return content["config"]["ems:experiment"]


class TestPrograms:
    @pytest.fixture(autouse=True)
    def script(self, here):
        (here.root / "train.py").write_text("print(1)\n")

    def test_a_program_gets_a_stack_file_that_runs_it(self, here):
        written = stack.of_command(here, "fit", "python train.py --lr 0.1")
        assert written.paths[0] == here.stack_file("fit")
        assert described(here, "fit")["job"] == {"command": ["python", "train.py", "--lr", "0.1"]}
        commit(here.root)
        assert preflight.report(StackFiles(here, clusters.settings()), "fit").problems == ()

    def test_options_are_offered_as_a_grid(self, here):
        line = "python train.py --lr=0.1 --layers 3 --name 'a b' --flag -n -2 --out rows.csv --learning-rate 1e-3 7"
        stack.of_command(here, "fit", line)
        lines = here.stack_file("fit").read_text().split("sweep:\n")[1].split("    results:")[0]
        offered = yaml.safe_load(textwrap.dedent(lines.replace("      #", "")))
        assert offered == {
            "lr": [0.1], "layers": [3], "name": ["a b"], "n": [-2], "learning_rate": ["1e-3"], "arg14": [7]
        } or offered["learning_rate"] == [0.001]  # fmt: skip
        swept = programs.read(line, here.root, here.root).swept
        assert swept[:6] == ("python", "train.py", "--lr={lr}", "--layers", "{layers}", "--name")
        assert swept[-5:] == ("--out", "rows.csv", "--learning-rate", "{learning_rate}", "{arg14}")

    def test_what_is_no_value_stays_as_it_is(self, here):
        found = programs.read("python -m train --point 3 --a {1} --b 007 --b 1", here.root, here.root)
        assert found.swept == ("python", "-m", "train", "--point", "3", "--a", "{a}", "--b", "{b}", "--b", "1")
        assert found.axes == {"a": "{1}", "b": "007"}
        found = programs.read("sim run{1} {results}/x /data/x", here.root, here.root)
        assert found.swept == ("sim", "run{{1}}", "{results}/x", "/data/x")

    def test_placeholders_become_axes_with_values_to_fill_in(self, here):
        line = "SEED={seed} python train.py --k {k} --lr 0.1 --out={results}/k{k}.csv --json '{1}'"
        written = stack.of_command(here, "fit", line)
        assert written.notes[0] == "Give values to k, seed."
        assert described(here, "fit")["job"] == {
            "command": ["python", "train.py", "--k", "{k}", "--lr", "0.1", "--out={results}/k{k}.csv", "--json",
                        "{{1}}"],
            "sweep": {"k": None, "seed": None},
        }  # fmt: skip
        assert described(here, "fit")["env"] == {"SEED": "{seed}"}
        file = here.stack_file("fit")
        assert "        k:  # FILL IN: its values, as [1, 2, 3]\n" in file.read_text()
        commit(here.root)
        problems = preflight.report(StackFiles(here, clusters.settings()), "fit").problems
        for name in ("k", "seed"):
            assert any(f"ems:experiment.job.sweep.{name}: is empty" in each for each in problems)
        file.write_text(file.read_text().replace("  # FILL IN: its values, as [1, 2, 3]", " [1, 2]"))
        commit(here.root)
        assert preflight.report(StackFiles(here, clusters.settings()), "fit").problems == ()

    def test_in_a_line_for_a_shell_its_own_braces_stay(self, here):
        found = programs.read("for x in {k} {1..3}; do echo ${x}; done", here.root, here.root)
        assert found.blanks == ("k",)
        assert found.words == ("bash", "-c", "for x in {k} {{1..3}}; do echo ${{x}}; done")
        assert programs.read("awk '{print}' rows.csv", here.root, here.root).blanks == ()
        assert programs.read("sim {zip}", here.root, here.root).swept == ("sim", "{{zip}}")

    def test_a_line_for_a_shell_is_given_to_one(self, here):
        for line in ("make && ./sim", "a | b", "echo $HOME", "cat *.txt > x", 'echo "$HOME"'):
            assert programs.read(line, here.root, here.root).words == ("bash", "-c", line)
        assert programs.read("echo 'a | b' 'c>d'", here.root, here.root).words == ("echo", "a | b", "c>d")

    def test_variables_before_the_program_become_env(self, here):
        stack.of_command(here, "fit", "SEED=3 NAME='a b' python train.py")
        assert described(here, "fit")["env"] == {"SEED": "3", "NAME": "a b"}
        with pytest.raises(UserError, match="EMS_X"):
            programs.read("EMS_X=3 python train.py", here.root, here.root)

    def test_a_script_is_named_from_the_labs_folder(self, here):
        (here.root / "sub").mkdir()
        (here.root / "sub/other.py").touch()
        with pytest.raises(UserError, match="lab's folder, where jobs start") as caught:
            programs.read("python other.py", here.root, here.root / "sub")
        assert "sub/other.py" in caught.value.hint
        with pytest.raises(UserError, match=r"nosuch\.py is not there"):
            programs.read("python nosuch.py", here.root, here.root)

    def test_a_path_into_the_lab_becomes_that_of_the_commits_file_and_is_offered_as_the_code(self, here):
        (here.root / "sim.py").write_text("")
        stack.of_command(here, "fit", f"python {here.root / 'sim.py'} --lr 0.1 --out /tmp/x")
        said = here.stack_file("fit").read_text()
        assert "command: [python, sim.py, --lr, 0.1, --out, /tmp/x]" in said.replace('"', "")
        assert "# code: {paths: [sim.py]}" in said

    def test_nothing_is_written_twice(self, here):
        stack.of_command(here, "fit", "python train.py")
        with pytest.raises(UserError, match=r"There is already stacks/Pulumi\.fit\.yaml"):
            stack.of_command(here, "fit", "python train.py")

    @pytest.mark.parametrize("line", ["", "A=1", "python 'x"])
    def test_what_is_no_command_is_refused(self, line, here):
        with pytest.raises(UserError):
            programs.read(line, here.root, here.root)

    @given(
        st.lists(st.one_of(st.text(max_size=12), st.sampled_from(["-", "--", "---", "no", "1e3", "~", "{a}", "0x1"])))
    )
    def test_any_words_are_read_as_they_are_written(self, words):
        assert yaml.safe_load(text.listed(words)) == words


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))))
def test_any_numbers_are_read_as_they_are_written(values):
    written = text.axis(values)
    if not written.startswith("{range"):
        parts = written.strip("[]").split(", ") if values else []
        read = [scalars.scalar(part) for part in parts]
        assert read == values and [type(each) for each in read] == [type(each) for each in values]


SOURCE = """
import numpy as np
class Model:
    def inner(self): ...
async def later(a): ...
def rows(m: int, n=3, *, p: float = -0.5, seed, kind="a", tol=np.pi, flag: bool = False, point=1, **rest):
    return {}
def by_place(a, /): ...
def nothing(): ...
def reserved(point): ...
if True:
    def under(a=1): ...
def prepared(a, context): ...
"""


class TestFunctions:
    @pytest.fixture(autouse=True)
    def module(self, here):
        (here.root / "src/pkg").mkdir(parents=True)
        (here.root / "src/pkg/__init__.py").touch()
        (here.root / "src/pkg/study.py").write_text(SOURCE)
        (here.root / "flat.py").write_text("def f(a=1): ...\n")

    def test_parameters_become_axes_defaults_values_and_others_blanks(self, here):
        written = stack.of_function(here, "fit", "pkg.study:rows")
        job = described(here, "fit")["job"]
        assert job["function"] == "pkg.study:rows"
        assert job["sweep"] == {"m": None, "n": [3], "p": [-0.5], "seed": None, "kind": ["a"], "flag": [False]}
        said = here.stack_file("fit").read_text()
        assert "m:  # FILL IN: int, as [1, 2, 3]" in said and "{count: 10} for seeds" in said
        assert "tol keeps its default np.pi" in said and "point keeps its default 1" in said
        assert "m, seed" in written.notes[0]

    def test_what_a_set_up_returns_is_no_axis(self, here):
        called = functions.read("pkg.study:prepared", here.root)
        assert [axis.name for axis in called.axes] == ["a"]
        assert called.left_out == (
            "context is what a function of its own returns: name that above, as setup: MODULE:NAME",
        )

    def test_check_names_each_blank_with_its_line(self, here):
        stack.of_function(here, "fit", "pkg.study:rows")
        commit(here.root)
        problems = preflight.report(StackFiles(here, clusters.settings()), "fit").problems
        lines = here.stack_file("fit").read_text().splitlines()
        for name in ("m", "seed"):
            line = next(number for number, line in enumerate(lines, start=1) if line.strip().startswith(f"{name}:"))
            assert any(
                f"Pulumi.fit.yaml:{line}: ems:experiment.job.sweep.{name}: is empty" in each for each in problems
            )

    def test_a_module_beside_src_and_a_function_under_a_condition_are_found(self, here):
        assert functions.read("flat:f", here.root).axes == (functions.Axis("a", (1,)),)
        assert functions.read("pkg.study:under", here.root).axes == (functions.Axis("a", (1,)),)

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("pkg.study", "module:function"),
            ("pkg.nosuch:f", r"module pkg\.nosuch is not there"),
            ("pkg.study:rws", "did you mean rows"),
            ("pkg.study:inner", "in a class"),
            ("pkg.study:by_place", "by position"),
            ("pkg.study:nothing", "has no parameters"),
            ("pkg.study:reserved", "parameter point"),
        ],
    )
    def test_what_cannot_be_called_over_a_grid_is_refused(self, name, part, here):
        with pytest.raises(UserError, match=part):
            functions.read(name, here.root)

    def test_a_module_that_is_no_python_is_refused(self, here):
        (here.root / "flat.py").write_text("def f(:\n")
        with pytest.raises(UserError, match="is not Python"):
            functions.read("flat:f", here.root)


def sweep_of(here, content, name="old", **options):
    file = here.root / "old.json"
    file.write_text(json.dumps(content))
    written = stack.of_file(here, name, file, **options)
    found = described(here, name)
    sweep = found["job"]["sweep"]
    return written, found, [sweep] if isinstance(sweep, dict) else sweep


def points(grids):
    return [Sweep.of(grids).parameters(place) for place in range(len(Sweep.of(grids)))]


GRID = {"m": [50], "n": [1275, 2550], "mc": list(range(50)), "c4": [0.25, 2.5, 1e-05], "kind": ["a b", "no"]}


class TestDescriptions:
    @pytest.mark.parametrize("key", ["params", "multi_res"])
    def test_a_list_of_grids(self, key, here):
        _, found, grids = sweep_of(here, {"table_name": "phase_x", key: [GRID, {**GRID, "m": [60]}]})
        assert found["results"]["table"] == "phase_x" and found["job"]["function"] is None
        assert [grid["mc"] for grid in grids] == [{"range": [0, 49, 1]}] * 2
        assert len(points(grids)) == 2 * 2 * 50 * 3 * 2 and grids[1]["m"] == [60]
        assert grids[0]["kind"] == ["a b", "no"]

    def test_one_grid_and_the_order_in_which_keys_count(self, here):
        assert sweep_of(here, {"parameters": {"m": [1, 2]}})[2] == [{"m": [1, 2]}]
        assert sweep_of(here, {"params": [], "multi_res": [{"m": [3]}], "parameters": {"m": [1]}}, "b")[2] == [
            {"m": [3]}
        ]
        both = {"params": [{"m": [4]}], "multi_res": [{"m": [3]}]}
        assert sweep_of(here, both, "c")[2] == [{"m": [4]}]

    def test_the_points_of_a_stop_list_are_left_out(self, here):
        grid = {"m": [1, 2, 3], "n": [4, 5], "p": ["a", "b"]}
        stop = [{"m": 2, "n": 4, "p": "b"}, {"m": 3, "n": 5, "p": "a"}, {"m": 1, "n": 4}, {"m": 9, "n": 4, "p": "a"}]
        _, _, grids = sweep_of(here, {"table_name": "t", "params": [grid], "stop_list": stop})
        expected = [point for point in points([grid]) if point not in stop]
        assert sorted(map(str, points(grids))) == sorted(map(str, expected)) and len(expected) == 10

    def test_a_function_is_checked_against_the_names(self, here):
        (here.root / "flat.py").write_text("def f(m, n=1): ...\n")
        content = {"table_name": "t", "params": [{"m": [1, 2]}]}
        _, found, _ = sweep_of(here, content, function="flat:f")
        assert found["job"] == {"function": "flat:f", "sweep": {"m": [1, 2]}}
        commit(here.root)
        assert stackfile.load(here.stack_file("old"))
        with pytest.raises(UserError, match="flat:f has no parameter q"):
            sweep_of(here, {"params": [{"q": [1]}]}, "b", function="flat:f")

    def test_without_one_its_blank_is_named_by_check(self, here):
        written, _, _ = sweep_of(here, {"table_name": "stats285_X-1", "params": [{"m": [1]}]})
        assert "stats285_X-1 is called stats285_x_1" in written.notes[0] and "job.function" in written.notes[1]
        with pytest.raises(StackFileError, match=r"Pulumi\.old\.yaml:\d+: ems:experiment\.job\.function"):
            stackfile.load(here.stack_file("old"))

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ([1], "does not describe an experiment"),
            ({"table_name": "x"}, "it has table_name"),
            ({"params": []}, "has no grid"),
            ({"params": {"m": [1]}}, "allowed is a list of grids"),
            ({"params": [[1]]}, r"params\[0\] is"),
            ({"params": [{"m": []}]}, r"params\[0\]\.m is empty"),
            ({"params": [{"m": [[1]]}]}, r"params\[0\]\.m has"),
            ({"params": [{"m": [None]}]}, r"params\[0\]\.m has"),
            ({"params": [{"m": [float("nan")]}]}, r"params\[0\]\.m has"),
            ({"params": [{"point": [1]}]}, "point"),
            ({"params": [{"m": [1]}], "other": 1}, "other is not a key"),
            ({"params": [{"m": [1]}], "stop_list": 3}, "stop_list is 3"),
            ({"params": [{"m": [1]}], "stop_list": [{"m": 1}]}, "leaves no point"),
        ],
    )
    def test_what_is_no_description_is_refused_with_its_place(self, content, part, here):
        file = here.root / "old.json"
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match=part):
            descriptions.read(file)

    def test_single_and_repeated_values(self, here):
        assert sweep_of(here, {"params": [{"m": 3, "n": [1, 1.0, 2], "s": "ab"}]})[2] == [
            {"m": [3], "n": [1, 2], "s": ["ab"]}
        ]


class TestEnvironments:
    """Which one the stack file names."""

    @pytest.fixture(autouse=True)
    def script(self, here):
        (here.root / "train.py").write_text("print(1)\n")

    def test_a_lock_of_the_repository(self, here):
        (here.root / "uv.lock").touch()
        (here.root / "pyproject.toml").write_text(
            '[project]\nname = "x"\nrequires-python = ">=3.8"\n[project.optional-dependencies]\nplot = []\n'
            "[dependency-groups]\nsimulation = []\n"
        )
        stack.of_command(here, "fit", "python train.py")
        found = described(here, "fit")["environment"]
        assert found["lock"] == "uv.lock" and found["python"].startswith("3.")
        assert "besides groups: [simulation] and extras: [plot]" in here.stack_file("fit").read_text()
        (here.root / ".python-version").write_text("3.12\n")
        run("new", "plain")
        assert described(here, "plain")["environment"] == {"lock": "uv.lock"}
        assert "code" not in described(here, "plain") and not (here.root / "environments/plain").exists()

    def test_the_one_that_init_made_of_requirements(self, here):
        (here.root / "requirements.txt").write_text("six\n")
        written = stack.of_command(here, "fit", "python train.py")
        assert described(here, "fit")["environment"] == "main" and "ems env lock main --from" in written.notes[0]
        (here.root / "environments/main").mkdir()
        assert stack.of_command(here, "other", "python train.py").notes == ()

    def test_else_one_of_its_own(self, here):
        written = stack.of_command(here, "fit", "python train.py")
        assert described(here, "fit")["environment"] == "fit"
        assert here.root / "environments/fit/python-version" in written.paths


def test_the_command_says_what_it_wrote_and_what_is_to_be_said(here):
    (here.root / "flat.py").write_text("def f(m): ...\n")
    done = run("new", "fit", "--function", "flat:f")
    assert "wrote stacks/Pulumi.fit.yaml" in done.stdout and "Give values to what has no default: m." in done.stdout
    refused = execute("new", "b", "--function", "flat:f", "--command", "x")
    assert refused.returncode == 2 and "Say one of them" in refused.stderr


def test_the_name_of_imported_rows_is_refused(here):
    set_up(here)
    (here.root / "runs.csv").write_text("m\n1\n")
    run("import", "runs.csv", "--as", "phase")
    for words in ([], ["--command", "python -c pass"]):
        said = run("new", "phase", *words, expect=2).stderr
        assert "phase is the name of imported rows" in said and "ems new NAME" in said
    assert not here.stack_file("phase").exists()
