"""How many examples Hypothesis tries: `change` at every change, the same ones each time; `campaign` many and always new.

`QUORKER_HYPOTHESIS=campaign` chooses the second. No profile has a deadline: speed is measured in `bench/`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "change", max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "campaign",
    max_examples=3_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("QUORKER_HYPOTHESIS", "change"))
