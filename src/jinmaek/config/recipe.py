"""The recipe of a run: every setting, its default and its bounds.

Unknown keys are errors (pydantic's ``extra="forbid"``); keys that a recipe would ignore, and settings that
contradict each other, are found by :mod:`jinmaek.config.relevance`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

BUILTIN_PREFIX = "builtin:"
DATA_ENDINGS = (".csv", ".json", ".jsonl", ".parquet", ".tsv")
Dtype = Literal["bf16", "fp16", "fp32"]
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Section(BaseModel):
    """A table of the recipe: frozen, strict in types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class About(Section):
    """One sentence on the recipe in each language."""

    en: str = ""
    ko: str = ""


class ModelSection(Section):
    """The frozen base model."""

    name: Annotated[str, Field(min_length=1)]
    """Hub name, folder, or ``builtin:tiny-ko/model``."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    quantization: Literal["nf4", "fp4", "int8", "none"] = "nf4"
    """How bitsandbytes stores the base's linear layers."""
    double_quant: bool = True
    """Quantise the 4-bit scales as well (0.37 bit a weight less)."""
    compute_dtype: Dtype = "bf16"
    """Dtype in which the 4-bit layers multiply."""
    keep_quantized: bool = True
    """On a GPU, keep bases of a GiB and more in 4 bits on disk (``~/.cache/jinmaek``): the next start is faster."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation of transformers."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, slower."""
    trust_remote_code: bool = False
    """Run the model's own code from the hub."""


class AdapterSection(Section):
    """The LoRA adapter that is trained."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Width of the low-rank update."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The update is multiplied by alpha / rank (rsLoRA: alpha / √rank)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs set to 0 in training."""
    targets: Names | Literal["all-linear", "peft"] = "all-linear"
    """Module names, ``all-linear``, or ``peft`` (PEFT's choice for the architecture)."""
    rslora: bool = False
    """Rank-stabilised LoRA."""
    dora: bool = False
    """Weight-decomposed LoRA."""


class DataSection(Section):
    """What is learnt."""

    source: Annotated[str, Field(min_length=1)]
    """Hub name, a .json, .jsonl, .csv, .tsv or .parquet file, or ``builtin:tiny-ko/train.jsonl``."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str = "train"
    """Split of a hub data set."""
    format: Literal["auto", "pairs", "text", "messages"] = "auto"
    """Question and answer, plain text, or chat messages; by default told from the columns."""
    question_column: str | None = None
    """By default instruction, question, Q or prompt."""
    answer_column: str | None = None
    """By default output, answer, A, completion or response."""
    context_column: str | None = None
    """By default input or context; may be empty in a row."""
    text_column: str | None = None
    """By default text."""
    messages_column: str | None = None
    """By default messages or conversations."""
    template: str = "koalpaca"
    """``koalpaca``, ``chat`` (the tokenizer's), or text with {question}, {answer} and perhaps {context}."""
    system: str | None = None
    """System message put before every conversation (chat template only)."""
    loss: Literal["answer", "all"] | None = None
    """Which tokens count; by default the answer, and all of plain text."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens an example is cut to."""
    packing: bool = False
    """Lay several documents behind one another in a row of ``train.batch_tokens``."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the examples kept out of training (at most 500)."""
    held_out_source: str | None = None
    """A data set of its own for the held-out loss."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Only the first rows."""


class TrainSection(Section):
    """The loop."""

    precision: Dtype = "bf16"
    """Of the forward pass; the adapter, its gradient and the optimizer are fp32 in any case."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps to run."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Or how often each example is seen."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Examples in a microbatch (without packing)."""
    batch_tokens: Annotated[int, Field(ge=8)] = 2048
    """Tokens in a microbatch (with packing)."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Microbatches in a step; the loss is a mean over all their tokens."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients longer than this are shortened to it; 0 never."""
    seed: Annotated[int, Field(ge=0)] = 42
    """Of order, held-out split, fresh adapter and dropout."""
    max_skipped_steps: Annotated[int, Field(ge=1)] = 10
    """So many steps in a row without an update end the run."""
    loss_scale_init: Annotated[float, Field(gt=0)] = 65536.0
    """fp16: the loss scale of the first step."""
    loss_scale_min: Annotated[float, Field(gt=0)] = 1.0
    """fp16: the floor; without one the scale falls to 0 and nothing is ever learnt again."""
    loss_scale_growth_steps: Annotated[int, Field(ge=1)] = 2000
    """fp16: finite steps in a row until the scale doubles."""
    checkpoint_every: Annotated[int, Field(ge=0)] = 100
    """Steps between checkpoints; 0 writes one checkpoint, at the end."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 3
    """The last so many stay on disk."""
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Held-out loss every so many steps; it is always taken before and after."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps between printed lines (every step is recorded)."""
    deterministic: bool = True
    """Only kernels that repeat to the bit."""


class KernelsSection(Section):
    """Fused kernels for the step on a GPU: the same mathematics, faster, in less memory."""

    fused: bool = True
    """Use them where GPU, model and settings allow; where not, plain PyTorch computes, and one line says why."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """GPU memory to stay below, in GiB: what does not fit is computed twice or kept on the host; by default all."""
    cache_weights: Literal["auto", "always", "never"] = "auto"
    """Keep the base dequantised in GPU memory (2 bytes a weight more, the same bits); auto: where there is room."""
    fp8: bool = False
    """Multiply with the frozen base in fp8 (e4m3): faster, and lossy; needs an Ada, Hopper or newer GPU."""


class OptimSection(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"] = "adamw"
    """torch's fused AdamW, or one of bitsandbytes'; paged ones lend host memory when the GPU's is short."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Learning rate at its highest."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Updates in which lr rises from 0."""
    schedule_steps: Annotated[int, Field(ge=1)] | None = None
    """Updates until lr reaches 0; by default the run's steps."""


class SamplesSection(Section):
    """Questions asked before and after training."""

    questions: Names = ()
    max_new_tokens: Annotated[int, Field(ge=1)] = 64


class CaptureSection(Section):
    """Snapshots from which ``jinmaek prove`` runs a step again."""

    every: Annotated[int, Field(ge=0)] = 20
    """Steps between snapshots of adapter and optimizer; 0 takes none."""
    keep: Annotated[int, Field(ge=1)] = 4
    """The last so many stay on disk."""
    keep_found: Annotated[int, Field(ge=0)] = 4
    """So many more are kept for good where a rule found something."""


class Recipe(Section):
    """Everything a run is asked to do."""

    name: str = "recipe"
    about: About = About()
    model: ModelSection
    adapter: AdapterSection = AdapterSection()
    data: DataSection
    train: TrainSection = TrainSection()
    kernels: KernelsSection = KernelsSection()
    optim: OptimSection = OptimSection()
    samples: SamplesSection = SamplesSection()
    capture: CaptureSection = CaptureSection()
