"""The real engine at work on small programs, with the AWS of tests behind it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

from ems.base.threads import Threads
from ems.engine import install

ALWAYS = ("--non-interactive", "--color=never")


@dataclass
class Stack:
    """A stack alone in a folder. Its program is a function, which runs in this process."""

    folder: Path
    port: int
    engine: subprocess.Popen[str] | None = None
    """The one at work."""
    _found: Path = field(default_factory=install.ensure)

    @classmethod
    def new(cls, folder: Path, port: int) -> Stack:
        """In a folder that is not there yet."""
        folder.mkdir(parents=True)
        (folder / "Pulumi.yaml").write_text("name: lab\nruntime: python\n")
        made = cls(folder, port)
        made.pulumi("stack", "init", "--no-select", "e")
        return made

    def up(self, program: Callable[[], None], *words: str, fails: bool = False) -> str:
        """What the engine says; it must fail, or must not."""
        return self._with(program, "up", "--yes", "--skip-preview", *words, fails=fails)

    def preview(self, program: Callable[[], None], fails: bool = False) -> str:
        return self._with(program, "preview", "--diff", fails=fails)

    def refresh(self, *words: str) -> str:
        return self.pulumi("refresh", "--yes", "--skip-preview", *words)

    def destroy(self, fails: bool = False) -> str:
        return self.pulumi("destroy", "--yes", "--skip-preview", fails=fails)

    def outputs(self, name: str) -> dict[str, Any]:
        """The state of the resource of that name."""
        return dict(self._resource(name)["outputs"])

    def id(self, name: str) -> str:
        return str(self._resource(name)["id"])

    def inputs(self, name: str) -> dict[str, Any]:
        return dict(self._resource(name)["inputs"])

    def deployment(self) -> dict[str, Any]:
        exported = json.loads(self.pulumi("stack", "export"))
        return dict(exported["deployment"])

    def pulumi(self, *words: str, fails: bool | None = False) -> str:
        """What it says on both streams; `fails` as None leaves it open."""
        command = [str(self._found / "pulumi"), *words, *ALWAYS]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=self.folder, env=self._environment(), text=True, **pipes) as self.engine:
            said, _ = self.engine.communicate()
        assert fails is None or bool(self.engine.returncode) == fails, said
        return said

    def _with(self, program: Callable[[], None], *words: str, fails: bool | None) -> str:
        server = grpc.server(Threads())
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            return self.pulumi(*words, "--client", f"127.0.0.1:{port}", fails=fails)
        finally:
            server.stop(grace=None)

    def _resource(self, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.deployment()["resources"] if each["urn"].endswith(f"::{name}")]
        return dict(found)

    def _environment(self) -> dict[str, str]:
        settings = {
            "PULUMI_BACKEND_URL": f"file://{self.folder}",
            "PULUMI_CONFIG_PASSPHRASE": "",
            "PULUMI_DEBUG_PROVIDERS": f"aws:{self.port}",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_STACK": "e",
            "PATH": os.pathsep.join([str(self._found), os.environ["PATH"]]),
        }
        return {**os.environ, **settings}
