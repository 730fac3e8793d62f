"""The lab as a command finds it, of which each thing is read once: it makes one `StackFiles` and passes it along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from ems.base.errors import Fault, StackFileError
from ems.base.once import Once
from ems.lab import Lab
from ems.lab.repository import WorkTree, work_tree
from ems.stack import fields, stackfile
from ems.stack.models import ClusterSpec, LabSpec, Spec
from ems.stack.settings import Places
from ems.stack.stackfile import StackFile

S = TypeVar("S", LabSpec, ClusterSpec)


class StackFiles:
    """The stack files of `lab`. `places`: the settings that each kind of place has (`ems.clusters.settings`)."""

    def __init__(self, lab: Lab, places: Places) -> None:
        self.lab, self._places = lab, places
        self.once = Once()

    @property
    def tree(self) -> WorkTree:
        """What git says of the lab; ProvenanceError as of `work_tree`."""
        return self.once("tree", lambda: work_tree(self.lab.root))

    def require_lab(self) -> None:
        """UserError as of `Lab.require`."""
        self.once("lab", self.lab.require)

    def file(self, stack: str) -> StackFile:
        """The file of `stack` as it is written; StackFileError as of `stackfile.read`."""
        return self.once(("file", stack), lambda: stackfile.read(self.lab.stack_file(stack)))

    def spec(self, stack: str) -> Spec:
        """What the file of `stack` says; StackFileError has every fault, with file and line."""
        return self.once(("spec", stack), lambda: self._load(stack))

    def _load(self, stack: str) -> Spec:
        try:
            fields.STACK.check(stack)
        except ValueError as error:
            problem = f"the stack's name {error}; rename this file"
            raise StackFileError([Fault("", problem, str(self.lab.stack_file(stack)))]) from None
        return stackfile.parse(self.file(stack), self._places)

    def described(self) -> Mapping[str, Spec]:
        """The stacks whose files are valid: faults of another one are reported when it is checked itself."""
        return self.once("described", lambda: dict(self._described()))

    def _described(self) -> Iterator[tuple[str, Spec]]:
        for stack in self.lab.stacks():
            try:
                yield stack, self.spec(stack)
            except StackFileError:
                continue

    def laboratory(self) -> LabSpec | None:
        """What `ems:lab` says, in the stack `lab` or another one; None if none has it."""
        spec = self.spec(stack) if (stack := self.lab_stack()) else None
        return spec if isinstance(spec, LabSpec) else None

    def lab_stack(self) -> str | None:
        """The stack that describes the lab: `lab`, or another one; None if none does."""
        return next(iter(self.lab_stacks()), None)

    def lab_stacks(self) -> list[str]:
        """All stacks that describe the lab, in the order in which they count: `lab` first."""
        return self.once("lab stacks", lambda: sorted(self._of_kind(LabSpec), key=lambda stack: stack != "lab"))

    def places(self) -> dict[str, ClusterSpec]:
        """The persistent places that valid stack files describe, by stack."""
        return self.once("places", lambda: self._of_kind(ClusterSpec))

    def _of_kind(self, kind: type[S]) -> dict[str, S]:
        return {stack: spec for stack, spec in self.described().items() if isinstance(spec, kind)}


@contextmanager
def locating(lab: Lab, stack: str) -> Iterator[None]:
    """Faults without a file that are found in the block get that of `stack`, and their lines in it."""
    try:
        yield
    except StackFileError as error:
        if all(fault.file for fault in error.faults):
            raise
        raise StackFileError(stackfile.locate(error.faults, lab.stack_file(stack))) from None
