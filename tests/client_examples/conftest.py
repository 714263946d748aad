"""The camera client's own modules can be imported by its tests; those that import generated stubs cannot, for two
generated copies of a proto cannot share a process."""

from __future__ import annotations

import sys

from tests.support.checkout import ROOT

sys.path.append(str(ROOT / "client_examples" / "camera"))
