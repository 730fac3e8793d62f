"""Small labs in real git repositories, and what their code resolves to."""

import subprocess

import pytest

from ems.base.errors import ProvenanceError
from ems.lab.repository import work_tree
from ems.provenance import code as provenance
from ems.stack.models import CodeSpec


def git(folder, *words):
    person = ["-c", "user.name=researcher", "-c", "user.email=researcher@example.org"]
    done = subprocess.run(["git", *person, *map(str, words)], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


FILES = {
    "README.md": "A lab.\n",
    ".gitignore": "data/\n",
    "experiments/fit.py": "print(1)\n",
    "experiments/notes.md": "Notes.\n",
    "notebooks/look.ipynb": "{}\n",
    "docs/manual.txt": "Text.\n",
    "stacks/Pulumi.fit.yaml": "config:\n  ems:experiment:\n    title: Fit\n",
    "environments/small/requirements.txt": "",
    "environments/small/python-version": "3.11\n",
}


def make_lab(folder):
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    write(folder, FILES)
    commit(folder)
    return folder


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Change")
    return git(folder, "rev-parse", "HEAD")


def resolve(root, remote_needed=False, stack_file=None, **code):
    return provenance.resolve(
        work_tree(root),
        CodeSpec(**code),
        environment=["environments/small"],
        stack_file=stack_file or root / "stacks/Pulumi.fit.yaml",
        remote_needed=remote_needed,
    )


def refusal(root, **options):
    with pytest.raises(ProvenanceError) as caught:
        resolve(root, **options)
    return str(caught.value)


def names(code):
    return [file.path for file in code.files]
