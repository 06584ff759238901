"""Trials on a Ray cluster whose machines all see the sweep's folder: the same processes, the same files.

A Ray task starts the process of a trial and waits for it. Each takes one GPU; in a cluster without GPUs, all cores of a
machine, so that a trial computes with as many threads, and so to the same bits, as it would here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinmaek.core.errors import RunError
from jinmaek.lab.processes import start_process
from jinmaek.lab.sweep_directory import SweepDirectory

_LOST = -1  # the exit code of a trial whose machine is gone


def run_in_task(path: str, trial: int, folder: str, threads: int | None) -> int:
    """What a Ray task does: the exit code of the trial's process, run in ``folder``."""
    return start_process(SweepDirectory(Path(path)), trial, threads, folder).wait()


class RayEngine:
    """Joins the cluster that ``RAY_ADDRESS`` names, or starts one on this machine."""

    def __init__(self, jobs: int | None) -> None:
        """``jobs``: trials at a time; ``None``: as many as there are GPUs, or machines.

        Raises:
            RunError: Ray is not installed, or the cluster cannot be joined.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise RunError("lab.no_ray") from error
        self._ray = ray
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address, logging_level="ERROR", log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError("lab.ray_failed", address=address or "local", error=error) from error
        self._options, self.slots, self._threads = self._shares(jobs)
        self._running: dict[int, Any] = {}

    def _shares(self, jobs: int | None) -> tuple[dict[str, Any], int, int | None]:
        """What a task asks for, how many fit, and the threads of each (``None``: as OMP_NUM_THREADS says)."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = int(sum(machine.get("GPU", 0) for machine in machines))
        if gpus:
            return {"num_gpus": 1, "num_cpus": 1}, min(jobs or gpus, gpus), None
        cores = int(min(machine.get("CPU", 1) for machine in machines))
        each = cores if jobs is None else max(1, cores * len(machines) // jobs)
        threads = None if "OMP_NUM_THREADS" in os.environ else each
        return {"num_cpus": each}, jobs or len(machines), threads

    def start(self, directory: SweepDirectory, trial: int) -> None:
        """Hand a trial to the cluster."""
        task = self._ray.remote(max_retries=0, **self._options)(run_in_task)
        path = str(directory.path.absolute())
        self._running[trial] = task.remote(path, trial, str(Path.cwd()), self._threads)

    def ended(self) -> dict[int, int]:
        """Trials that ended, with their exit codes."""
        if not self._running:
            return {}
        ready, _ = self._ray.wait(list(self._running.values()), num_returns=len(self._running), timeout=0)
        done = {trial: self._code(task) for trial, task in self._running.items() if task in ready}
        for trial in done:
            del self._running[trial]
        return done

    def _code(self, task: Any) -> int:
        try:
            return int(self._ray.get(task))
        except self._ray.exceptions.RayError:
            return _LOST

    def kill(self) -> None:
        """End the tasks; a trial whose task is gone saves and ends by itself."""
        for task in self._running.values():
            self._ray.cancel(task, force=True)
        self._running.clear()

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        self._ray.shutdown()
