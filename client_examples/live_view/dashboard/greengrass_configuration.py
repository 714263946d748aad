"""The Greengrass component's configuration, asked of the nucleus once."""

from __future__ import annotations

import logging
from concurrent.futures import TimeoutError as FutureTimeout  # on Python 3.10 not the built-in one
from typing import Any

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from dashboard.settings import WrongSetting

ANSWER_LIMIT_S = 5.0

# It says each failure several times, and we once.
logging.getLogger("awsiot.eventstreamrpc").setLevel(logging.CRITICAL)


def greengrass_configuration() -> dict[str, Any]:
    """The whole of it. Raises WrongSetting where the nucleus is away or refuses."""
    try:
        client = GreengrassCoreIPCClientV2()  # finds the nucleus by the environment; waits 10 s at most
    except KeyError as error:
        raise WrongSetting(f"--greengrass is for Greengrass components: the environment has no {error}") from None
    except Exception as error:  # the SDK has many ways to say that there is no connection
        raise WrongSetting(f"the nucleus is away: {type(error).__name__} {error}".strip()) from None
    try:
        answer = client.get_configuration_async(key_path=[]).result(ANSWER_LIMIT_S)
    except FutureTimeout:
        raise WrongSetting(f"no answer from the nucleus within {ANSWER_LIMIT_S:g} s") from None
    except Exception as error:
        raise WrongSetting(f"the component's configuration cannot be read: {type(error).__name__} {error}") from None
    finally:
        client.close()
    # What the component may do is for the nucleus, not for us.
    return {key: value for key, value in answer.value.items() if key != "accessControl"}
