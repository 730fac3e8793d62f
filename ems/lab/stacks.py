"""The lab's stack files, each read once: a command makes one `StackFiles` and passes it along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ems.base.errors import Fault, StackFileError, UserError
from ems.lab import Lab
from ems.stack import fields, stackfile
from ems.stack.models import ClusterSpec, LabSpec, Spec
from ems.stack.settings import Places
from ems.stack.stackfile import StackFile


class StackFiles:
    """The stack files of `lab`. `places`: the settings that each kind of place has (`ems.clusters.settings`)."""

    def __init__(self, lab: Lab, places: Places) -> None:
        self.lab, self._places = lab, places
        self._files: dict[str, StackFile] = {}
        self._specs: dict[str, Spec | StackFileError] = {}
        self._unfit: UserError | None = None
        self._is_examined = False

    def require_lab(self) -> None:
        """UserError as of `Lab.require`, which is asked once."""
        if not self._is_examined:
            try:
                self.lab.require()
            except UserError as error:
                self._unfit = error
            self._is_examined = True
        if self._unfit:
            raise self._unfit

    def file(self, stack: str) -> StackFile:
        """The file of `stack` as it is written; StackFileError as of `stackfile.read`."""
        if stack not in self._files:
            self._files[stack] = stackfile.read(self.lab.stack_file(stack))
        return self._files[stack]

    def spec(self, stack: str) -> Spec:
        """What the file of `stack` says; StackFileError has every fault, with file and line."""
        if stack not in self._specs:
            self._specs[stack] = self._load(stack)
        found = self._specs[stack]
        if isinstance(found, StackFileError):
            raise found
        return found

    def _load(self, stack: str) -> Spec | StackFileError:
        try:
            fields.STACK.check(stack)
        except ValueError as error:
            problem = f"the stack's name {error}; rename this file"
            return StackFileError([Fault("", problem, str(self.lab.stack_file(stack)))])
        try:
            return stackfile.parse(self.file(stack), self._places)
        except StackFileError as error:
            return error

    def described(self) -> Iterator[tuple[str, Spec]]:
        """The stacks whose files are valid: faults of another one are reported when it is checked itself."""
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
        found = [stack for stack, spec in self.described() if isinstance(spec, LabSpec)]
        return "lab" if "lab" in found else next(iter(found), None)

    def places(self) -> dict[str, ClusterSpec]:
        """The persistent places that valid stack files describe, by stack."""
        return {stack: spec for stack, spec in self.described() if isinstance(spec, ClusterSpec)}


@contextmanager
def locating(lab: Lab, stack: str) -> Iterator[None]:
    """Faults without a file that are found in the block get that of `stack`, and their lines in it."""
    try:
        yield
    except StackFileError as error:
        if all(fault.file for fault in error.faults):
            raise
        raise StackFileError(stackfile.locate(error.faults, lab.stack_file(stack))) from None
