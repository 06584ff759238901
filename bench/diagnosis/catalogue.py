"""All scenarios."""

from __future__ import annotations

from bench.diagnosis import (
    jinmaek_faults,
    jinmaek_healthy,
    jinmaek_numerics,
    trainer_data,
    trainer_dynamics,
    trainer_healthy,
    trainer_numerics,
)
from bench.diagnosis.scenario import Scenario


def all_scenarios() -> list[Scenario]:
    """Every scenario of both trainers; a name is unique within a trainer."""
    faults = [trainer_numerics, trainer_dynamics, trainer_data, jinmaek_numerics, jinmaek_faults]
    return [scenario for module in (*faults, trainer_healthy, jinmaek_healthy) for scenario in module.scenarios()]
