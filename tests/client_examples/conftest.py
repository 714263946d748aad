"""The own modules of camera client and live view can be imported by their tests; those that import generated stubs
cannot, for two generated copies of a proto cannot share a process."""

from __future__ import annotations

import sys

from tests.support.checkout import ROOT

sys.path += [str(ROOT / "client_examples" / folder) for folder in ("camera", "live_view")]
