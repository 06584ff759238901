"""The adapter's model card: what a stranger on the hub needs to use it and to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinmaek.config.recipe import BUILTIN_PREFIX
from jinmaek.core.version import VERSION
from jinmaek.training.conversations import prompt_segments
from jinmaek.training.session import Session

_CARD = """\
---
{base_line}library_name: peft
tags: [lora, jinmaek]
---
# {name}

LoRA adapter for `{base}`, trained with jinmaek {version}.

| | |
| --- | --- |
| data | `{source}`: {num_examples} examples, {num_held_out} held out, loss on {loss} tokens |
| base weights | {quantization}, attention {attention} |
| adapter | rank {rank}, alpha {alpha:g}, dropout {dropout:g}, {num_weights:,} weights in {groups} |
| training | {max_steps} steps, {precision}, {optimizer}, lr {lr:g} {schedule}, seed {seed} |
| held-out loss (nats a token) | {held_out} |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base!r})
tokenizer = AutoTokenizer.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "path/of/this/folder")
```

Prompt: `{prompt}`

The licences of the base model and of the data apply to what is made from them.
"""


def write_card(folder: Path, session: Session, evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Write ``README.md`` into the adapter's folder."""
    recipe, report = session.recipe, session.data.report
    by_step = {event["step"]: event["loss"] for event in evaluations}
    last = max(by_step, default=None)
    held_out = "nothing was held out" if last is None else f"{by_step.get(0)} before, {by_step[last]} after"
    hub = not recipe.model.name.startswith(BUILTIN_PREFIX) and not Path(recipe.model.name).exists()
    text = _CARD.format(
        # The hub refuses a card whose base_model is no hub name.
        base_line=f"base_model: {recipe.model.name}\n" if hub else "",
        name=recipe.name,
        base=recipe.model.name,
        version=VERSION,
        source=recipe.data.source,
        num_examples=report.num_examples,
        num_held_out=report.num_held_out,
        loss=report.loss,
        quantization=recipe.model.quantization,
        attention=recipe.model.attention,
        rank=recipe.adapter.rank,
        alpha=recipe.adapter.alpha,
        dropout=recipe.adapter.dropout,
        num_weights=session.num_weights,
        groups=", ".join(session.groups),
        max_steps=session.max_steps,
        precision=recipe.train.precision,
        optimizer=recipe.optim.name,
        lr=recipe.optim.lr,
        schedule=recipe.optim.schedule,
        seed=recipe.train.seed,
        held_out=held_out,
        prompt=_prompt(recipe.data.template),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _prompt(template: str) -> str:
    if template == "chat":
        return "the tokenizer's chat template"
    return prompt_segments(template, "{question}")[0].replace("\n", "\\n")
