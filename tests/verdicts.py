"""Verdicts made by hand, for the tests of what is told."""

from math import inf, nan

from jinmaek.core.verdict import Cause, Control, Difference, Headroom, Location, Trial, Verdict

MODULE = "gpt_neox.layers.17.attention.query_key_value"

OVERFLOW = Verdict(
    run="runs/koalpaca-0412",
    step=487,
    symptom="loss_not_finite",
    outcome="CONFIRMED",
    control=Control(reproduced="bit_exact", start_step=460, num_steps=27, repeats=True),
    recorded={"loss": nan, "grad_norm": nan, "lr": 5.25e-05, "loss_scale": 65536.0, "digest": "1f0c"},
    location=Location(
        module=MODULE,
        op="aten.mm",
        phase="forward",
        dtype="float16",
        limit=65504.0,
        input_absmax=(1203.5, 8.25),
        output_absmax=61984.0,
        true_absmax=71203.4,
        num_non_finite=12,
        num_values=1_572_864,
        example_id="k-17",
        position=83,
        token="…\n",
    ),
    headroom=Headroom(
        module=MODULE,
        limit=65504.0,
        shares={460: 0.412, 465: 0.498, 470: 0.583, 475: 0.702, 480: 0.853, 484: 0.9413, 486: 0.9996},
        steps_left=0.7,
    ),
    trials=(
        Trial(arm="control", family="control", outcome="fails", loss=nan, grad_norm=nan, seconds=2.31, facts={"start_step": 460}),
        Trial(arm="bf16", family="precision", outcome="heals", loss=1.8123, grad_norm=0.9312, seconds=2.2),
        Trial(arm="fp32", family="precision", outcome="heals", loss=1.81192, grad_norm=0.93077, seconds=7.64),
        Trial(arm="smaller_scale", family="loss_scale", outcome="fails", loss=nan, grad_norm=nan, seconds=2.3, facts={"loss_scale": 1.0}),
        Trial(arm="attention_fp32", family="kernel", outcome="fails", loss=nan, grad_norm=nan, seconds=2.4),
        Trial(arm="without_example", family="data", outcome="heals", loss=1.7411, grad_norm=0.88, seconds=2.0, facts={"example": "k-17"}),
        Trial(arm="only_example", family="data", outcome="fails", loss=nan, grad_norm=nan, seconds=0.9, facts={"example": "k-17"}),
        Trial(arm="fresh_adapter", family="adapter", outcome="heals", loss=2.4012, grad_norm=1.204, seconds=2.2),
        Trial(arm="earlier_adapter", family="adapter", outcome="heals", loss=1.8234, grad_norm=0.951, seconds=2.2, facts={"adapter_step": 460}),
        Trial(arm="lower_lr", family="history", outcome="not_run", reason="budget", facts={"start_step": 460, "lr": 5.25e-06, "factor": 10}),
        Trial(arm="exact_moments", family="history", outcome="not_run", reason="out_of_memory", facts={"start_step": 460}),
        Trial(arm="no_dropout", family="dropout", outcome="not_run", reason="not_applicable"),
    ),
    causes=(
        Cause(
            id="overflow",
            status="confirmed",
            trials=("bf16", "fp32"),
            facts={"phase": "forward", "module": MODULE, "dtype": "float16", "true_absmax": 71203.4, "limit": 65504.0, "healed_by": ["bf16", "fp32"]},
        ),
        Cause(id="example", status="confirmed", trials=("without_example", "only_example"), facts={"example": "k-17", "necessary": True, "sufficient": True, "loss": nan}),
        Cause(
            id="adapter",
            status="confirmed",
            trials=("fresh_adapter", "earlier_adapter"),
            facts={"earlier_step": 460, "earlier_outcome": "heals", "norm_before": 12.41, "norm_now": 48.3, "start_step": 460},
        ),
        Cause(id="loss_scale", status="refuted", trials=("smaller_scale",), facts={"loss_scale": 65536.0, "largest_finite_scale": None}),
        Cause(id="kernel", status="refuted", trials=("attention_fp32",)),
        Cause(id="optimizer", status="undecided", trials=("exact_moments",)),
        Cause(id="lr", status="undecided", trials=("lower_lr",), facts={"lr": 5.25e-05, "usual_lr": None}),
    ),
    differences=(Difference(name="device.driver", recorded="570.86", now="570.124"),),
    device="NVIDIA H100 80GB HBM3",
    seconds=41.7,
)

MOVED = Verdict(
    run="runs/koalpaca-0412",
    step=12487,
    symptom="gradient_not_finite",
    outcome="NOT_REPRODUCED",
    control=Control(reproduced="no", start_step=0, num_steps=120, first_departure=12401, repeats=False, spread=0.00021),
    recorded={"loss": 1.7312, "grad_norm": "Infinity"},
    headroom=Headroom(module="model.layers.3", limit=3.3895313892515355e38, shares={12400: 0.00012, 12480: 0.00011}, steps_left=None),
    trials=(
        Trial(arm="control", family="control", outcome="heals", loss=1.7309, grad_norm=0.91, seconds=212.4, facts={"start_step": 0}),
        Trial(arm="repeat", family="control", outcome="heals", loss=1.731, grad_norm=0.92, seconds=211.9),
        Trial(
            arm="lost_optimizer", family="state", outcome="differs", loss=1.7388, grad_norm=1.31, seconds=90.0, facts={"resumed_step": 12000}
        ),
        Trial(arm="lost_data_order", family="state", outcome="differs", loss=23456789.0, grad_norm=inf, seconds=90.0, facts={"resumed_step": 12000}),
        Trial(arm="fp32", family="precision", outcome="not_run", reason="out_of_memory"),
        Trial(arm="fp16", family="precision", outcome="not_run", reason="out_of_memory"),
    ),
    causes=(
        Cause(id="wrong_resume", status="refuted", trials=("lost_optimizer", "lost_data_order"), facts={"resumed_step": 12000}),
        Cause(id="not_deterministic", status="undecided", facts={"spread": 0.00021, "num_repeats": 3, "num_failing": 0}),
        Cause(id="environment", status="undecided", facts={"names": ["torch", "device.gpu"]}),
    ),
    differences=(
        Difference(name="torch", recorded="2.11.0", now="2.13.0"),
        Difference(name="device.gpu", recorded="NVIDIA A100", now="NVIDIA H100 80GB HBM3"),
        Difference(name="bitsandbytes", recorded="0.50.0", now="None"),
        Difference(name="data", recorded="3fa97c0d11aa…", now="77b0c4d2e810…"),
    ),
    device="NVIDIA H100 80GB HBM3",
    seconds=1204.0,
)
