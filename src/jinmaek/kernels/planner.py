"""How much of each layer is kept for the backward pass, so that a microbatch fits into the memory there is."""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.kernels.stream import Keep

_GAP = 1.03  # blocks of the allocator that fit nobody


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Bytes a token that one layer takes, by what is kept, and for as long as it is computed.

    ``stream``: the residual stream; ``attention``: queries, keys, values and the attention's output; ``inner``: the
    MLP's values before the activation; ``working``: the most that is alive besides, in the forward or backward pass.
    """

    stream: int
    attention: int
    inner: int
    working: int

    def kept(self, keep: Keep) -> int:
        """Bytes a token kept from the forward to the backward pass."""
        return self.stream + (self.attention if keep >= Keep.ATTENTION else 0) + (self.inner if keep == Keep.ALL else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What each layer keeps, first layer first, and whether the streams of all lie in host memory meanwhile."""

    keep: tuple[Keep, ...]
    offload: bool
    needed_bytes: int

    @property
    def share_recomputed(self) -> float:
        """Share of the layers' kept values that is computed a second time, 0 … 1."""
        return 1 - sum(self.keep) / (len(self.keep) * Keep.ALL)


def plan_memory(
    layer: LayerBytes, num_layers: int, tokens: int, fixed: int, available: int, *, recompute: bool
) -> Plan:
    """Keep as much as fits: whole layers, then one more attention; what does not fit even so goes to the host.

    Args:
        layer: bytes a token of one layer.
        num_layers: how many there are.
        tokens: of the microbatch.
        fixed: bytes that are needed in any case (head, embedding's output).
        available: bytes that may be used.
        recompute: whether anything may be computed twice; if not, everything is kept.
    """
    everything = _plan(layer, [Keep.ALL] * num_layers, tokens, fixed, offload=False)
    if not recompute or everything.needed_bytes <= available:
        return everything
    chosen = [Keep.INPUT] * num_layers
    smallest = _plan(layer, chosen, tokens, fixed, offload=False)
    if smallest.needed_bytes > available:
        return _plan(layer, chosen, tokens, fixed, offload=True)
    best = smallest
    # The last layers are the first to be free again.
    for number in reversed(range(num_layers)):
        for keep in (Keep.ATTENTION, Keep.ALL):
            chosen[number] = keep
            larger = _plan(layer, chosen, tokens, fixed, offload=False)
            if larger.needed_bytes > available:
                return best
            best = larger
    return best


def _plan(layer: LayerBytes, keep: list[Keep], tokens: int, fixed: int, *, offload: bool) -> Plan:
    per_token = layer.working + sum(layer.kept(each) for each in keep)
    if offload:  # two layers' streams are on the device at a time: the one in use and the next
        per_token = layer.working + 3 * layer.stream
    return Plan(tuple(keep), offload, int(_GAP * per_token * tokens) + fixed)
