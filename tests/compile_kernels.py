"""Compile every fused kernel to machine code for a GPU that need not be there: ``python tests/compile_kernels.py 86``.

A whole model is computed with a driver that compiles what is launched and launches nothing, so each kernel is met with
the dtypes, strides and constants of its real calls. Prints a line a kernel: its name and shared memory in bytes.
"""

# ruff: noqa: E402
import os
import sys

os.environ["TRITON_INTERPRET"] = "0"

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

CAPABILITY = int(sys.argv[1])


class NoGpu:
    """What Triton asks of a driver before it launches."""

    def get_current_target(self):
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(NoGpu())
launch, shared = JITFunction.run, {}


def compile_only(self, *args, grid, warmup, **kwargs):
    kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
    name = f"{self.__module__}.{self.__name__}"
    shared[name] = max(shared.get(name, 0), kernel.metadata.shared)
    return kernel


JITFunction.run = compile_only

from jinmaek.kernels import fp8
from jinmaek.kernels.fuse import fuse
from jinmaek.kernels.row import Row
from jinmaek.kernels.stream import Dtypes

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
PRECISIONS = [Dtypes(BF16, BF16, BF16), Dtypes(FP16, FP16, FP32), Dtypes(BF16, FP16, FP32)]


def config(kind, head_size):
    common = {"vocab_size": 500, "hidden_size": 2 * head_size, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "gpt_neox":
        return transformers.GPTNeoXConfig(**common, intermediate_size=256, bos_token_id=0, eos_token_id=0)
    if kind == "gemma3":
        more = {"num_key_value_heads": 1, "head_dim": head_size, "sliding_window": 4}
        return transformers.Gemma3TextConfig(**common, intermediate_size=256, **more, layer_types=["sliding_attention"])
    if kind == "exaone4":
        more = {"num_key_value_heads": 1, "sliding_window": None}
        return transformers.Exaone4Config(**common, intermediate_size=256, **more, layer_types=["full_attention"])
    return transformers.LlamaConfig(**common, intermediate_size=256, num_key_value_heads=1)


def quantised(model, dtype):
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            sizes = layer.in_features, layer.out_features, layer.bias is not None
            four = Linear4bit(*sizes, compute_dtype=dtype, quant_type="nf4")
            four.load_state_dict(layer.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, four.to("cpu"))
    return model


def compile_all(kind, head_size, dtypes, use_fp8):
    model = transformers.AutoModelForCausalLM.from_config(config(kind, head_size), dtype=dtypes.compute)
    adapter = LoraConfig(r=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(quantised(model, dtypes.compute), adapter)
    fused = fuse(model, dtypes, max_positions=64, recompute=True, memory_limit=None)
    fused.weights.fp8 = use_fp8
    ids = np.arange(3, 23)
    row = Row.of(ids, np.roll(ids, -1), [8, 12], torch.device("cpu"))
    fused.loss(row, torch.ones(1, dtype=torch.int64), torch.ones(1))


torch._scaled_mm = lambda one, other, *_, out_dtype, **__: torch.zeros(one.shape[0], other.shape[1], dtype=out_dtype)
for precision in PRECISIONS:
    compile_all("gpt_neox", 128, precision, use_fp8=False)
compile_all("gpt_neox", 256, PRECISIONS[0], use_fp8=False)
compile_all("llama", 64, PRECISIONS[0], use_fp8=CAPABILITY >= 89)
compile_all("gemma3", 256, PRECISIONS[0], use_fp8=False)
compile_all("exaone4", 64, PRECISIONS[0], use_fp8=False)
assert torch.finfo(fp8.DTYPE).max == fp8.LARGEST
for name, size in sorted(shared.items()):
    print(name, size)
