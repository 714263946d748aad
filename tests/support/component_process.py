"""The agent as Greengrass runs it: no flag, all it is told comes from its nucleus."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.agent_process import AgentProcess
from tests.support.nucleus import Nucleus


class ComponentProcess(AgentProcess):
    """`python -m agent serve` in a component's environment, socket and registry where the configuration has them."""

    def __init__(
        self, nucleus: Nucleus, *, environment: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> None:
        super().__init__(environment={**nucleus.environment, **(environment or {})}, through=through)
        nucleus.change(**self.places())

    def places(self) -> dict[str, Any]:
        """The configuration that names them."""
        return {"Socket": f"unix://{self.socket}", "Registry": str(self.registry)}

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.through, sys.executable, "-m", "agent", "serve"],
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._environment,
            )
        return self.process
