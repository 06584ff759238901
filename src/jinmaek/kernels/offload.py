"""The layers' streams, kept in order, on the device or in pinned host memory beside the computing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jinmaek.kernels.stream import Kept


@dataclass(slots=True)
class _Sent:
    """One tensor in host memory: on its way there, or back."""

    host: torch.Tensor
    device: torch.Tensor | None = None


class Offload:
    """A stack of :class:`Kept`. ``enabled`` sends the streams of all but the newest layer to the host and back.

    Copies run on a stream of their own, one layer ahead of the computing in both directions; pinned memory is
    torch's own cache's, taken once and used again.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._layers: list[Kept] = []
        self._sent: list[dict[str, _Sent]] = []
        self._copying = torch.cuda.Stream() if enabled else None  # type: ignore[no-untyped-call]

    def put(self, kept: Kept) -> None:
        """Keep a layer; the one before it goes to the host."""
        self._layers.append(kept)
        if self._copying is not None and len(self._layers) > 1:
            self._sent.append(self._send(self._layers[-2]))

    def take(self) -> Kept:
        """The newest layer; the one before it is fetched meanwhile."""
        kept = self._layers.pop()
        if self._copying is None:
            return kept
        if len(self._layers) < len(self._sent):  # it was sent: fetched when its successor was taken
            for name, sent in self._sent.pop().items():
                setattr(kept, name, sent.device)
            torch.cuda.current_stream().wait_stream(self._copying)
        if self._sent:
            self._fetch(self._sent[-1])
        return kept

    def _send(self, kept: Kept) -> dict[str, _Sent]:
        assert self._copying is not None
        found = {}
        self._copying.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copying):
            for name in ("x", "middle", "attention_delta", "mlp_delta"):
                tensor = getattr(kept, name)
                if tensor is not None:
                    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    found[name] = _Sent(host.copy_(tensor, non_blocking=True))
                    tensor.record_stream(self._copying)
                    setattr(kept, name, None)
        return found

    def _fetch(self, sent: dict[str, _Sent]) -> None:
        assert self._copying is not None
        # Not before the device has come this far: memory that is free for the copy is free only then.
        self._copying.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copying):
            for each in sent.values():
                each.device = each.host.to("cuda", non_blocking=True)
                each.device.record_stream(torch.cuda.current_stream())
