"""Where a step breaks: the first operation whose inputs are good and whose output is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from jinmaek.core.verdict import Location
from jinmaek.replay.dequantisation import dequantised
from jinmaek.replay.scan import Op, OpScan, largest
from jinmaek.replay.scene import Scene
from jinmaek.training.batches import Batch
from jinmaek.training.state import State

_PEFT_PREFIX = "base_model.model."


def locate(scene: Scene, state: State, step: int) -> tuple[Location, Op] | None:
    """The place where step ``step`` on ``state`` first becomes non-finite; ``None`` where it stays finite.

    Runs the step once to find the operation and once more for each candidate to look at it closely.
    """
    scan = OpScan(scene.training.model)
    with scan.running():
        scene.measure(state, step)
    values = scan.values()
    masks: set[int] = set()  # infinities that say where nothing is to be looked at
    for op in scan.ops:
        if math.isfinite(values[op.output]) or op.is_fill or op.is_view:
            if op.is_fill and math.isinf(values[op.output]):
                masks.add(op.output)
            continue
        if all(math.isfinite(values[each]) or each in masks for each in op.inputs):
            found = _look(scene, state, step, op)
            if found is None:
                masks.add(op.output)
        else:
            weight = _bad_weight(scene, op.key[0])
            found = None if weight is None else _look(scene, state, step, op, weight)
        if found is not None:
            return found, op
    return None


def nearest_to_limit(scene: Scene, state: State, step: int) -> tuple[Op, float] | None:
    """The forward operation of a finite step whose output came nearest to its dtype's limit, and its share of it."""
    scan = OpScan(scene.training.model)
    with scan.running():
        scene.measure(state, step)
    values = scan.values()
    limit = limit_of(torch.float16)
    shares = [
        (values[op.output] / limit, number)
        for number, op in enumerate(scan.ops)
        if op.dtype == torch.float16
        and op.key[2] == "forward"
        and not (op.is_fill or op.is_view)
        # The limit itself is a mask's.
        and all(values[each] < limit for each in (op.output, *op.inputs))
    ]
    if not shares:
        return None
    share, number = max(shares)
    return scan.ops[number], share


def limit_of(dtype: torch.dtype) -> float:
    """Largest finite number of ``dtype``."""
    return float(torch.finfo(dtype).max)


def plain_name(module: str) -> str:
    """The module's name in the model as loaded, without what PEFT puts around it."""
    name = module.removeprefix(_PEFT_PREFIX)
    return name.replace(".base_layer", "").replace(".default", "")


def _look(scene: Scene, state: State, step: int, op: Op, weight: str | None = None) -> Location | None:
    """Run the step again and look at ``op``; ``None`` where it only goes on with a mask."""
    found: list[Location] = []
    batch = scene.batches(step)[op.micro]

    def inspect(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.numel()]
        sizes = tuple(float(largest(each)) for each in given if each.is_floating_point())
        masked = [each <= _mask_of(each.dtype) for each in given if each.is_floating_point()]
        true = None if weight is not None else _true_largest(scene, op, func, args, kwargs)
        result = run()
        output = next(each for each in tree_leaves(result) if isinstance(each, torch.Tensor))
        if weight is not None or not _only_masks(masked, output):
            seen = _described(scene, op, output, batch)
            found.append(replace(seen, input_absmax=sizes, true_absmax=true, weight=weight))
        return result

    scan = OpScan(scene.training.model, stop_at=op, inspect=inspect)
    with scan.running():
        scene.measure(state, step)
    return found[0] if found else None


def _mask_of(dtype: torch.dtype) -> float:
    """What transformers writes where nothing is to be looked at: the least number, in fp32 also that of bf16."""
    return -limit_of(dtype) if dtype == torch.float16 else -0.99 * limit_of(dtype)


def _only_masks(masked: Sequence[torch.Tensor], output: torch.Tensor) -> bool:
    """Whether ``output`` is -inf where one of the inputs is ``masked``, and finite elsewhere.

    A score below a mask of fp16's least number is such: that is no overflow of the score.
    """
    bad = ~torch.isfinite(output)
    if not bool(bad.any()) or not bool((output[bad] == -math.inf).all()):
        return False
    for each in masked:
        with suppress(RuntimeError):  # of a shape that has nothing to do with the output's
            if bool(each.broadcast_to(output.shape)[bad].all()):
                return True
    return False


def _described(scene: Scene, op: Op, output: torch.Tensor, batch: Batch) -> Location:
    finite = torch.isfinite(output)
    bad = int((~finite).sum())
    first = int((~finite).flatten().to(torch.uint8).argmax())
    row, position = _token_of(output.shape, first, batch) if bad else (None, None)
    return Location(
        module=plain_name(op.key[0]),
        op=op.key[1],
        phase=op.key[2],
        dtype=str(op.dtype).removeprefix("torch."),
        limit=limit_of(op.dtype),
        input_absmax=(),
        output_absmax=float(output[finite].abs().max()) if bad < output.numel() else None,
        true_absmax=None,
        num_non_finite=bad,
        num_values=output.numel(),
        example_id=_example_of(batch, row, position),
        position=position,
        token=_token(scene, batch, row, position),
    )


def _bad_weight(scene: Scene, module: str) -> str | None:
    """The frozen or trained weight that is itself not finite, if one is; of several one of ``module``."""
    bad = [name for name, weight in scene.training.model.named_parameters() if not _is_finite(weight)]
    bad.sort(key=lambda name: not name.startswith(f"{module}."))
    return plain_name(bad[0]) if bad else None


def _is_finite(weight: Any) -> bool:
    """Of a 4-bit weight: what its codes are multiplied by."""
    state = getattr(weight, "quant_state", None)
    parts = [weight] if state is None else [state.absmax]
    if state is not None and state.nested:
        parts += [state.state2.absmax, state.offset]
    return all(bool(torch.isfinite(largest(part))) for part in parts if part.is_floating_point())


def _true_largest(scene: Scene, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Largest |y| of the operation on the same inputs in fp64; ``None`` where it cannot be run so."""
    name = func._schema.name
    try:
        if name.startswith("bitsandbytes::"):
            return _four_bit(scene.training.model.get_submodule(op.key[0]), name, args)
        if "scaled_dot_product" in name:
            return None if "backward" in name else float(largest(_attention(func, args, kwargs)))
        if name in ("aten::_to_copy", "aten::to", "aten::copy_"):
            return float(largest(args[-1] if name == "aten::copy_" else args[0]))
        wide = {key: value for key, value in kwargs.items() if key != "dtype"}
        result = func(*tree_map(_doubled, args), **tree_map(_doubled, wide))
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return None
    output = next((each for each in tree_leaves(result) if isinstance(each, torch.Tensor)), None)
    return None if output is None else float(torch.linalg.vector_norm(output, math.inf))


def _four_bit(layer: Any, name: str, args: tuple[Any, ...]) -> float | None:
    """The 4-bit layer's matrix, or its product with the input, from the definition of the codes."""
    if not hasattr(layer.weight, "quant_state"):
        return None
    matrix = dequantised(layer.weight)
    if "dequantize" in name:
        return float(largest(matrix))
    x = next((each for each in args if isinstance(each, torch.Tensor) and each.is_floating_point()), None)
    if x is None or x.shape[-1] != matrix.shape[1]:
        return None
    product = x.double() @ matrix.double().t()
    if layer.bias is not None:
        product += layer.bias.double()
    return float(largest(product))


def _attention(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Attention written out, in fp64, from the arguments of one of torch's kernels."""
    named = {argument.name: argument.default_value for argument in func._schema.arguments}
    named |= dict(zip(named, args, strict=False)) | kwargs
    bias = named.get("attn_bias", named.get("attn_mask"))
    result: torch.Tensor = torch.ops.aten._scaled_dot_product_attention_math(
        *(_doubled(named[part]) for part in ("query", "key", "value")),
        _doubled(bias),
        0.0,
        bool(named.get("is_causal", False)),
        None,
        scale=named.get("scale"),
    )[0]
    return result


def _doubled(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _token_of(shape: torch.Size, index: int, batch: Batch) -> tuple[int | None, int | None]:
    """Row and position of the flat ``index`` where the shape shows which axes those are."""
    rows, tokens = batch.input_ids.shape
    place = [int(each) for each in torch.unravel_index(torch.tensor(index), tuple(shape))] if shape else []
    if shape and shape[0] == rows * tokens:
        return divmod(place[0], tokens)
    if len(shape) >= 2 and shape[0] == rows:
        axis = next((axis for axis in range(1, len(shape)) if shape[axis] == tokens), None)
        return (place[0], None) if axis is None else (place[0], place[axis])
    return None, None


def _token(scene: Scene, batch: Batch, row: int | None, position: int | None) -> str | None:
    if row is None or position is None:
        return None
    text: str = scene.session.tokenizer.decode([int(batch.input_ids[row, position])])
    return text


def _example_of(batch: Batch, row: int | None, position: int | None) -> str | None:
    """In a pack the documents lie in one row, each beginning at position 0."""
    if row is None:
        return None
    if batch.position_ids is None:
        return batch.example_ids[row]
    if position is None:
        return None
    begun = int((batch.position_ids[0, : position + 1] == 0).sum())
    return batch.example_ids[begun - 1]
