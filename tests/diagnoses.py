"""Diagnoses made by hand, for the tests of what is told."""

from jinmaek.core.finding import Diagnosis, Finding, RuleResult

FOUNDING = Diagnosis(
    source="runs/run_max_steps_1000.txt",
    format="console",
    verdict="faulty",
    weights="intact",
    causes=(
        Finding(
            rule="zero-loss",
            id="nan-masked-scaler-skip",
            severity="error",
            confidence="established",
            first_step=480,
            last_step=520,
            evidence={
                "records": 5,
                "zeros": 3,
                "level": 1.8212,
                "noise": 0.08,
                "last_loss": 1.8932,
                "last_loss_step": 470,
                "odometer": "exact",
                "lr": 5.25e-05,
                "skipped_per_window": [[470, 10, 10], [480, 6, 10], [490, 1, 10], [500, 0, 10], [510, 0, 10]],
                "best_masked_loss": 1.7542,
                "best_masked_step": 480,
                "true_losses": [[490, 0.9884, 1.7971]],
                "peak_lr": 1e-4,
                "schedule_steps": 1000,
                "skipped_before": 2,
                "window": 10,
                "scaler_death_step": 641,
                "plateau_steps": None,
            },
            ruled_out=("nan-poisoned-weights", "overfitting", "convergence", "end-of-schedule"),
            undecided=("kernel",),
            weights="intact",
            consequences=(
                Finding(
                    rule="zero-loss",
                    id="masked-loss",
                    severity="note",
                    confidence="established",
                    first_step=500,
                    last_step=520,
                    evidence={"count": 3},
                ),
            ),
        ),
    ),
    notes=(
        Finding(
            rule="spike",
            id="grad-spike-finite",
            severity="note",
            confidence="likely",
            first_step=450,
            last_step=450,
            evidence={"count": 1, "peak": float("inf"), "peak_step": 450, "level": 0.9},
        ),
    ),
    rules=(
        RuleResult(rule="zero-loss", outcome="found"),
        RuleResult(rule="divergence", outcome="clear"),
        RuleResult(rule="spike", outcome="found"),
        RuleResult(rule="underflow", outcome="not_checkable", missing=("loss_scale", "grad_norm")),
        RuleResult(rule="frozen-weights", outcome="not_checkable", missing=("update_ratio|grad_norm",)),
    ),
    num_records=10,
    first_step=430,
    last_step=520,
    steps_known=False,
    steps_inferred=True,
    last_healthy_step=470,
    last_healthy_checkpoint="out/checkpoint-400",
    unread=1,
)

SERIES = (
    (430, 1.9922),
    (440, 1.7671),
    (450, 1.7888),
    (460, 1.849),
    (470, 1.8932),
    (480, 1.7542),
    (490, 0.9884),
    (500, 0.0),
    (510, 0.0),
    (520, 0.0),
)

HEALTHY = Diagnosis(
    source="run",
    format="jinmaek",
    verdict="healthy",
    weights="intact",
    rules=(RuleResult(rule="zero-loss", outcome="clear"),),
    num_records=40,
    first_step=1,
    last_step=40,
)
