"""Every operation of a step is seen, under the module it belongs to, and the step stays as it is."""

import math

import pytest
import torch

from jinmaek.replay.modules import ModulesAtWork, phase_now
from jinmaek.replay.scan import OpScan, largest
from jinmaek.training.step import run_step
from scenes import layer, scene_of

PREFIX = "base_model.model.gpt_neox.layers."
FP16 = {"precision": "fp16"}
PACKED = {
    "data": {"packing": True, "max_length": 96},
    "train": {"batch_size": None, "batch_tokens": 128, "precision": "bf16"},
}
RECIPES = {
    "fp32": {},
    "fp16 eager": {"train": FP16, "model": {"attention": "eager"}},
    "nf4 packed": PACKED | {"model": {"quantization": "nf4"}, "adapter": {"dropout": 0.1}},
}
each_checkpointing = pytest.mark.parametrize("checkpointing", [False, True])


def session_of(make_session, recipe, checkpointing=False):
    sections = RECIPES[recipe]
    return make_session(**sections | {"model": sections.get("model", {}) | {"activation_checkpointing": checkpointing}})


def scanned(session, **options):
    """A scan of the first step, and its values."""
    scene = scene_of(session)
    scan = OpScan(session.training.model, **options)
    with scan.running():
        scene.measure(scene.fresh, 1)
    return scan, scan.values()


def hooks(session):
    return [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in session.training.model.modules()]


def found(scan, module, op, phase):
    return [each for each in scan.ops if each.key[:3] == (module, op, phase)]


@each_checkpointing
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_scanned_step_is_the_same_to_the_bit(make_session, recipe, checkpointing):
    digests = []
    for scans in (False, True):
        session = session_of(make_session, recipe, checkpointing)
        before = hooks(session)
        if scans:
            with OpScan(session.training.model).running():
                records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2)]
        else:
            records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2)]
        digests.append([record.digest for record in records])
        assert hooks(session) == before
    assert digests[0] == digests[1]


@each_checkpointing
def test_products_forward_and_backward_stand_under_their_layer(make_session, checkpointing):
    """dense_h_to_4h of layer 1: the frozen product, the gradient for its input, and the adapter's three of each."""
    scan, _ = scanned(session_of(make_session, "fp32", checkpointing))
    for number in (0, 1):
        name = f"{PREFIX}{number}.mlp.dense_h_to_4h"
        lora = [f"{name}.lora_A.default", f"{name}.lora_B.default"]
        assert len(found(scan, f"{name}.base_layer", "aten.addmm", "forward")) == 1
        again = 1 if checkpointing else 0  # what is recomputed counts as backward
        assert len(found(scan, f"{name}.base_layer", "aten.addmm", "backward")) == again
        assert [len(found(scan, each, "aten.mm", "forward")) for each in lora] == [1, 1]
        # Below the first layer nothing trains; transformers lets the embeddings have a gradient for checkpointing.
        below = 1 if number == 1 or checkpointing else 0
        grads = [len(found(scan, each, "aten.mm", "backward")) for each in (f"{name}.base_layer", *lora)]
        assert grads == [below, 1 + below + again, 2 + again]


@each_checkpointing
def test_each_operation_stands_under_the_module_whose_tensors_it_has(make_session, checkpointing):
    """Backward as well: the module is known by the size of what flows through it."""
    session = session_of(make_session, "fp32", checkpointing)
    scene, sizes = scene_of(session), {}
    seen = []
    own = OpScan.__torch_dispatch__

    class Watching(OpScan):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = own(self, func, types, args, kwargs)
            if func._schema.name == "aten::mm" and phase_now() == "backward":
                seen.append((self.ops[-1].key[0], {*args[0].shape, *args[1].shape}))
            return result

    scan = Watching(session.training.model)
    with scan.running():
        scene.measure(scene.fresh, 1)
    for name, module in session.training.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            sizes[name] = {module.in_features, module.out_features}
    assert len(seen) > 20
    assert all(sizes[name] & shape for name, shape in seen)
    assert {name for name, _ in seen} >= {name for name in sizes if ".lora_" in name}


def test_the_output_head_and_the_loss_have_their_places(make_session):
    scan, _ = scanned(session_of(make_session, "fp32"))
    head = "base_model.model.lm_head"
    assert len(found(scan, head, "aten.mm", "forward")) == 1
    assert len(found(scan, head, "aten.mm", "backward")) == 1
    assert found(scan, "", "aten.nll_loss_forward", "forward")
    assert found(scan, "", "aten.nll_loss_backward", "backward")


def test_every_microbatch_has_its_number_and_the_same_keys(make_session):
    session = make_session(train={"batch_size": 2, "accumulation": 2})
    scan, _ = scanned(session)
    inside = {
        micro: [op.key for op in scan.ops if op.micro == micro and op.key[0].startswith(PREFIX)] for micro in (0, 1)
    }
    assert len(inside[0]) > 200
    assert {op.micro for op in scan.ops} <= {-1, 0, 1}
    # The gradient of the second is added to the first's.
    assert inside[0] == [key for key in inside[1] if key in set(inside[0])]
    assert len(set(inside[0])) == len(inside[0]), "a key names one operation"


def test_keys_are_the_same_in_every_step(make_session):
    session = session_of(make_session, "fp16 eager")
    scene, keys = scene_of(session), []
    for step in (1, 2):
        scan = OpScan(session.training.model)
        with scan.running():
            scene.measure(scene.fresh, step)
        keys.append([op.key for op in scan.ops])
    assert keys[0] == keys[1]


@each_checkpointing
def test_a_watched_operation_is_the_only_one_recorded(make_session, checkpointing):
    session = session_of(make_session, "fp32", checkpointing)
    scan, values = scanned(session)
    op = found(scan, f"{PREFIX}1.mlp.dense_h_to_4h.base_layer", "aten.addmm", "forward")[0]
    watching, watched = scanned(session, watch=op.key)
    assert [each.key for each in watching.ops] == [op.key]
    assert watched == [values[op.output]]
    outputs = []
    handle = layer(session, 1).mlp.dense_h_to_4h.base_layer.register_forward_hook(
        lambda module, args, output: outputs.append(output.detach().abs().max().item())
    )
    scanned(session)
    handle.remove()
    assert watched[0] == outputs[0]


def test_an_operation_is_stopped_at_once_with_its_arguments(make_session):
    session = session_of(make_session, "fp32")
    scan, values = scanned(session)
    op = found(scan, f"{PREFIX}1.mlp.dense_h_to_4h.base_layer", "aten.addmm", "forward")[0]
    seen = []

    def inspect(func, args, kwargs, run):
        seen.append((func._schema.name, max(each.abs().max().item() for each in args)))
        return run()

    scanned(session, stop_at=op, inspect=inspect)
    assert seen == [("aten::addmm", max(values[each] for each in op.inputs))]


def run_scanned(work):
    """``work`` under a scan, outside of any module."""
    scan = OpScan(torch.nn.Identity())
    with scan.running():
        work()
    return scan, scan.values()


def test_a_value_that_was_written_over_is_taken_anew():
    def work():
        x = torch.ones(4)
        y = x * 2
        y.mul_(10)
        y.view(2, 2).add_(1)
        y + 0

    scan, values = run_scanned(work)
    outputs = {op.key[1]: values[op.output] for op in scan.ops}
    assert (outputs["aten.mul"], outputs["aten.mul_"], outputs["aten.add_"]) == (2.0, 20.0, 21.0)
    [last] = [op for op in scan.ops if op.key[1] == "aten.add"]
    assert values[last.inputs[0]] == 21.0


def test_memory_that_is_only_written_to_is_no_input():
    """Anything may stand in it, also NaN."""

    def work():
        fresh = torch.full((4,), math.nan)
        fresh.copy_(torch.ones(4))
        torch.mul(torch.ones(4), 2.0, out=fresh)

    scan, values = run_scanned(work)
    read = [op for op in scan.ops if op.key[1] in ("aten.copy_", "aten.mul")]
    assert len(read) == 2
    assert all(math.isfinite(values[each]) for op in read for each in op.inputs)
    assert [values[op.output] for op in read] == [1.0, 2.0]


def test_views_fills_and_whole_numbers():
    def work():
        x = torch.full((4,), 3.0)
        x.view(2, 2)
        x.masked_fill(x > 2, -math.inf)
        torch.arange(4) + 1

    scan, values = run_scanned(work)
    kinds = {op.key[1]: (op.is_fill, op.is_view, values[op.output]) for op in scan.ops}
    assert kinds["aten.full"] == (True, False, 3.0)
    assert kinds["aten.view"] == (False, True, 3.0)
    assert kinds["aten.masked_fill"] == (True, False, math.inf)
    assert not any("arange" in name or "gt" in name or name == "aten.add" for name in kinds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_is_fp32_and_hands_nan_and_infinity_on(dtype):
    values = torch.tensor([1.0, -60000.0, 3.0], dtype=dtype)
    assert largest(values).dtype == torch.float32
    assert largest(values).item() == -values[1].item()
    values[0] = -math.inf
    assert largest(values).item() == math.inf
    values[2] = math.nan
    assert math.isnan(largest(values).item())


def test_an_exception_inside_leaves_no_hook_and_no_module_behind(make_session):
    session = session_of(make_session, "fp32")
    model = session.training.model
    expected = scanned(session)[0]
    scan = OpScan(model)

    def stop(*_):
        raise ZeroDivisionError

    handle = layer(session, 1).mlp.act.register_forward_hook(stop)
    with pytest.raises(ZeroDivisionError), scan.running():
        scene_of(session).measure(scene_of(session).fresh, 1)
    handle.remove()
    assert scan._place_of.module() == ""
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())
    again = scanned(session)[0]
    assert [op.key for op in again.ops] == [op.key for op in expected.ops]


def test_a_module_that_is_called_twice_has_both_calls():
    linear = torch.nn.Linear(3, 3)
    places = ModulesAtWork(torch.nn.Sequential(linear))
    seen = []
    linear.register_forward_hook(lambda *_: seen.append(places.module()))
    with places.tracked():
        y = linear(linear(torch.ones(2, 3)))
        assert places.module() == ""
        y.register_hook(lambda grad: seen.append(phase_now()))
        y.sum().backward()
    assert seen == ["0", "0", "backward"]
    assert phase_now() == "forward"
