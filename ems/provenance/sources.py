"""What a job's own files say before anything runs: the program's file, the sweep's function, what the function takes.

They are read at the commit, and never run. Where the source leaves it open, as with decorators, `import *`, or a
package of the environment, nothing is said: each fault is one that the run would end with.
"""

from __future__ import annotations

import ast
import dataclasses
import posixpath
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TypeAlias

from ems.base.errors import Fault, StackFileError
from ems.base.messages import nearest, show, some
from ems.lab.objects import SUBMODULE, SYMLINK, CommittedFile, Objects
from ems.provenance.code import Code
from ems.provenance.environment import Environment, has_module
from ems.provenance.pins import pinned
from ems.stack.models import CommandJob, CommandSweepJob, ExperimentSpec, SweepJob
from ems.sweep import Sweep

INTERPRETER = re.compile(r"(.*/)?(python[\d.]*|Rscript|julia|octave|perl|ruby|node|bash|sh|zsh)")
EXECUTABLE = "100755"
_LOADED = """
abc array ast atexit bisect builtins bz2 codecs collections contextlib copy copyreg ctypes dataclasses datetime decimal
dis ems encodings enum errno fcntl fnmatch fractions functools genericpath importlib inspect io itertools json keyword
linecache logging lzma marshal math mmap ntpath numbers opcode operator os pathlib pickle platform posix posixpath re
reprlib select selectors shlex shutil signal site stat string struct subprocess sys threading time token tokenize
traceback types typing warnings weakref zipimport zlib
"""
LOADED_FIRST = frozenset(_LOADED.split())  # by a worker, before the code's folder comes first on its path
PATHS = "PYTHONPATH"
CONTEXT = "context"  # the keyword by which a sweep's function is given what `setup` returns
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
JOB = "ems:experiment.job"


def refuse(objects: Objects, code: Code, experiment: ExperimentSpec, environment: Environment) -> None:
    """StackFileError if the job names a file, a module, a function or parameters that are not there.

    `objects`: those of the repository that has the code.
    """
    named = [each for each in experiment.env.get(PATHS, "").split(":") if each]
    folders = tuple(folder for each in named if _is_folder(code, folder := posixpath.normpath(each)))
    job, there = experiment.job, _There(objects, code, environment, folders, more=len(folders) < len(named))
    if links := list(_broken_links(objects, code)):
        problem = f"hold symbolic links to what the job does not have: {some(links)}; add that, or leave them out"
        raise StackFileError([Fault("ems:experiment.code.paths", problem)])
    if found := list(_package_faults(code, environment)):
        raise StackFileError(found)
    if not isinstance(job, SweepJob):
        faults = list(_program_faults(code, job))
    else:
        taken = partial(_parameter_faults, job=job)
        faults = [*_function_faults(there, "function", job.function, taken)]
    if isinstance(job, SweepJob) and job.setup:
        faults += _function_faults(there, "setup", job.setup, _setup_faults)
    if not isinstance(job, CommandJob) and job.propose:
        faults += _function_faults(there, "propose", job.propose)
    if faults:
        raise StackFileError(faults)


def _broken_links(objects: Objects, code: Code) -> Iterator[str]:
    """Links to files that are not declared, that git does not have, or that git-annex keeps."""
    links = objects.link_targets(code.files)
    if not links:
        return
    there = {file.path for file in code.files}
    for path in list(there):
        there.update(str(folder) for folder in PurePosixPath(path).parents)
    for path, target in links.items():
        reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        through = any(str(folder) in links for folder in PurePosixPath(reached).parents)
        if reached not in there and not through:
            yield f"{path} -> {target}" + (" (kept by git-annex)" if ".git/annex/" in target else "")


def _package_faults(code: Code, environment: Environment) -> Iterator[Fault]:
    """The repository's own packages that the lock installs, and code.paths do not hold."""
    for package in environment.packages:
        for root in package.roots:
            if not any(root == "." or file.path.startswith(f"{root}/") for file in code.files):
                problem = f"do not hold {root}, where {environment.file} has the package {package.name}: add it"
                yield Fault("ems:experiment.code.paths", problem)


def _program_faults(code: Code, job: CommandJob | CommandSweepJob) -> Iterator[Fault]:
    program, *arguments = job.command
    is_script = bool(INTERPRETER.fullmatch(program)) and bool(arguments) and not arguments[0].startswith("-")
    script = arguments[0] if is_script else program
    if not is_script and "/" not in script:
        return  # a program of the environment or of the machine
    path = posixpath.normpath(script)
    if path.startswith(("/", "../")) or "{" in path:
        return
    there = {file.path: file for file in code.files}
    if path not in there:
        if not any(file.mode == SYMLINK and path.startswith(f"{file.path}/") for file in code.files):
            suffix = posixpath.splitext(path)[1]
            near = nearest(path, [name for name in there if name.endswith(suffix)])
            problem = f"runs {show(script)}, which code.paths do not hold at commit {code.commit[:12]}: {near}"
            yield Fault(f"{JOB}.command", problem)
    elif not is_script and there[path].mode not in {EXECUTABLE, SYMLINK}:
        fix = f"git update-index --chmod=+x {path} && git commit; or name its interpreter"
        yield Fault(f"{JOB}.command", f"starts {show(script)}, which is not executable: {fix}")


@dataclass(frozen=True)
class _There:
    """Where modules come from. `folders`: those of the code that `env:` names; `more`: it names others, too."""

    objects: Objects
    code: Code
    environment: Environment
    folders: tuple[str, ...] = ()
    more: bool = False

    def lacks(self, top: str) -> bool | None:
        """Whether only the code could have a module or package of this name; None where that is not known."""
        if self.more or any(file.path.partition("/")[0].partition(".")[0] == top for file in self._opaque()):
            return False
        has = has_module(self.environment, top)
        return None if has is None else not has

    def _opaque(self) -> Iterator[CommittedFile]:
        """Files of the code that may be modules, or have some."""
        return (file for file in self.code.files if file.mode in {SYMLINK, SUBMODULE} or ".so" in file.path)


def _function_faults(there: _There, key: str, function: str, taken: Taken | None = None) -> Iterator[Fault]:
    """Of the function that the job's `key` names; `taken` finds those of its parameters."""
    module, _, name = function.partition(":")
    key = f"{JOB}.{key}"
    top = module.partition(".")[0]
    shipped = there.code
    there = dataclasses.replace(there, code=_importable(there))
    objects, code, environment = there.objects, there.code, there.environment
    in_code = sorted({file.path.partition("/")[0].removesuffix(".py") for file in code.files if _is_code(file.path)})
    if top not in in_code:  # of the environment
        if there.lacks(top):
            where = f"neither code.paths nor the environment {environment.name} have"
            way = _below(shipped, module) or nearest(module, _modules(code))
            yield Fault(key, f"is in {module}, which {where}: {way}")
        return
    is_folder = _file(code, top) is None  # which any module of that name precedes
    if top in LOADED_FIRST or (is_folder and top in sys.stdlib_module_names):
        whose = "EMS's" if top == "ems" else "Python's"
        yield Fault(key, f"is in {top}, the name of {whose} own module, which is loaded in its place: rename yours")
        return
    source = _file(code, module)
    if source is None:
        if _is_certain(there, module):
            yield Fault(key, f"is in {module}, which code.paths do not hold: {nearest(module, _modules(code))}")
        return
    yield from _definition_faults(_source(objects, source), key, name, environment, taken)


def _is_folder(code: Code, path: str) -> bool:
    return any(path == "." or file.path.startswith(f"{path}/") for file in code.files)


def _below(code: Code, module: str) -> str:
    """What lets Python find a module that the code has in a folder, as src/; "" if it has none."""
    path = module.replace(".", "/")
    for file in code.files:
        for end in (f"/{path}.py", f"/{path}/__init__.py"):
            if file.path.endswith(end):
                return f"{file.path} is it with env: {{{PATHS}: {file.path.removesuffix(end)}}}"
    return ""


def _importable(there: _There) -> Code:
    """The code as Python sees it: also from its folders that `env:` names, and those of its packages, as src/."""
    code, packages = there.code, there.environment.packages
    named = dict.fromkeys([*there.folders, *(root for package in packages for root in package.roots)])
    roots = [f"{root}/" for root in named if root != "."]
    inside = (
        dataclasses.replace(file, path=file.path.removeprefix(root))
        for root in roots
        for file in code.files
        if file.path.startswith(root)
    )
    return dataclasses.replace(code, files=(*code.files, *inside)) if roots else code


def _is_code(path: str) -> bool:
    return path.endswith(".py")


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") if _is_code(path) else ""


def _modules(code: Code) -> list[str]:
    """All that the code has, by name."""
    return [found for file in code.files if (found := _module(file.path))]


def _is_certain(there: _There, module: str) -> bool:
    """Whether nothing else could have the module: no link, no compiled file, no package that extends its path.

    Python takes a package of the environment before a folder of its name that is not a package.
    """
    top = module.partition(".")[0]
    below = [file for file in there.code.files if file.path.startswith((f"{top}/", f"{top}."))]
    if any(file.mode in {SYMLINK, SUBMODULE} or ".so" in file.path for file in below):
        return False
    package = _file(there.code, top)
    if package is None:
        lacks = there.lacks(top)
        return not _has_alike(there.environment, top) if lacks is None else lacks
    return "__path__" not in _source(there.objects, package).text


def _has_alike(environment: Environment, top: str) -> bool:
    """Whether a distribution of the lock may have a package of this name, by its own name."""
    names = (name.replace("-", "_") for name in pinned(environment.lock))
    return any(name == top.lower() or name.startswith(f"{top.lower()}_") for name in names)


@dataclass(frozen=True)
class _Source:
    path: str
    text: str


Taken: TypeAlias = Callable[[_Source, Function], Iterator[Fault]]


def _file(code: Code, module: str) -> CommittedFile | None:
    """The file that Python loads for it; a package precedes a module of the same name."""
    stem = module.replace(".", "/")
    there = {file.path: file for file in code.files if file.mode not in {SYMLINK, SUBMODULE}}
    return there.get(f"{stem}/__init__.py") or there.get(f"{stem}.py")


def _source(objects: Objects, file: CommittedFile) -> _Source:
    return _Source(file.path, objects.read(file.blob).decode("utf-8", "replace"))


def _definition_faults(
    source: _Source, key: str, name: str, environment: Environment, taken: Taken | None
) -> Iterator[Fault]:
    try:
        tree = ast.parse(source.text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        if environment.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}"):
            yield Fault(key, f"is in {source.path}, which is not Python: line {line}: {error}")
        return
    found = list(_bindings(tree.body))
    meant = [binding for bound, binding in found if bound == name]
    if not meant and not _is_open(source.text):
        known = [bound for bound, binding in found if isinstance(binding, Function) and not bound.startswith("_")]
        yield Fault(key, f"is {show(name)}, which {source.path} does not have: {nearest(name, known)}")
    elif taken and len(meant) == 1 and isinstance(meant[0], Function) and not meant[0].decorator_list:
        yield from taken(source, meant[0])


def _is_open(text: str) -> bool:
    """Whether names may come in that no statement shows."""
    return bool(re.search(r"import\s*\(?\s*\*|globals\(\)|\bexec\(|__getattr__|__dict__|\bvars\(|sys\.modules", text))


def _bindings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """The names that a module's statements may bind, with what binds them; also in `if`, `try`, `for` and `with`."""
    for statement in body:
        if isinstance(statement, Function | ast.ClassDef):
            yield statement.name, statement
            continue
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=bound, ctx=ast.Store()):
                    yield bound, node
                case ast.Import() | ast.ImportFrom():
                    yield from (((alias.asname or alias.name).partition(".")[0], node) for alias in node.names)
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield node.name, statement  # under a condition: not known to be the one


def _parameter_faults(source: _Source, function: Function, job: SweepJob) -> Iterator[Fault]:
    about, where = function.args, f"{function.name} in {source.path}:{function.lineno}"
    named = [argument.arg for argument in (*about.args, *about.kwonlyargs)]
    set_up = [CONTEXT] if job.setup else []
    if set_up and about.kwarg is None and CONTEXT not in named:
        problem = f"gives its value by the keyword `{CONTEXT}`, which is not a parameter of {where}: add it there"
        yield Fault(f"{JOB}.setup", problem)
    for place, grid in enumerate(Sweep.of(job.sweep).grids):
        given = [axis.name for axis in grid.axes]
        key = f"{JOB}.sweep" + (f"[{place}]" if len(job.sweep) > 1 else "")
        for name in given if about.kwarg is None else ():
            if name not in named:
                yield Fault(f"{key}.{name}", f"is not a parameter of {where}: {nearest(name, named)}")
        for name in _needed(function):
            if name not in [*given, *set_up]:
                yield Fault(key, f"lacks {name}, which {where} needs: give it values, or give it a default there")


def _setup_faults(source: _Source, function: Function) -> Iterator[Fault]:
    if needed := _needed(function):
        where = f"{function.name} in {source.path}:{function.lineno}"
        yield Fault(f"{JOB}.setup", f"is called without arguments, but {where} needs {some(needed)}: give it defaults")


def _needed(function: Function) -> list[str]:
    """The names of the parameters without a default."""
    about = function.args
    plain = [*about.posonlyargs, *about.args]
    needed = plain[: len(plain) - len(about.defaults)]
    needed += [each for each, default in zip(about.kwonlyargs, about.kw_defaults, strict=True) if default is None]
    return [argument.arg for argument in needed]
