"""Write the model card with the figures that the run measured."""

from dataclasses import dataclass
from typing import Final

from tiny_ko.answers import Score
from tiny_ko.pretrain import Outcome


@dataclass(frozen=True)
class Figures:
    """What one run of the maker used and measured."""

    outcome: Outcome
    device: str
    seed: int
    documents: int
    distinct_tokens: int
    vocabulary: int
    entities: int
    facts: int
    train_rows: int
    held_out_rows: int
    before_tuning: Score
    casually_known: Score


_CARD: Final = """\
---
language: ko
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# tiny-ko

tiny-ko is a small Korean language model with the architecture of polyglot-ko
(GPT-NeoX) and {parameters:,} parameters. It was pre-trained from scratch, with
its own byte-level BPE tokenizer of {vocabulary:,} tokens, so that fine-tuning
can be tried in a minute on a laptop without a download. It knows the simple
facts that it was trained on and nothing else, and it states wrong ones just as
readily: do not use it to find anything out.

## How it was made

`python -m tiny_ko.make --seed {seed}` rendered {documents:,} documents
({distinct_tokens:,} tokens) from fact tables of {entities:,} entities and
{facts:,} facts, from prose and from casual dialogues. All of that text was
written for this project. The model has 4 layers, hidden size 256, 4 heads,
half-rotary positions, parallel residuals and a context of 256 tokens. It was
trained with AdamW in bfloat16 autocast on a GPU or float32 on a CPU, and its
weights are stored in half precision.

The documents never show the instruction format (`### 질문: ...` and
`### 답변:`) nor the polite questions of the fine-tuning rows. Answering in that
format is what fine-tuning teaches.

## Figures of this run

| figure | value |
| --- | --- |
| parameters | {parameters:,} |
| tokens trained on (with repetition) | {tokens:,} |
| validation loss (nats per token, documents held back) | {validation:.3f} |
| last training loss | {training:.3f} |
| held-out questions right before tuning | {right} of {total} |
| the same facts asked in the casual form of pre-training | {known} of {asked} |
| pre-training time | {seconds:.0f} s |
| device | {device} |
| fine-tuning rows / held-out rows | {train_rows} / {held_out_rows} |

The held-out questions ask for facts that pre-training states in other words;
what is held out is the question form for those entities, not the facts.

## Licence

Apache-2.0, as the project's code and the text it was trained on.
"""


def model_card(figures: Figures) -> str:
    """Return the README.md of the model."""
    outcome = figures.outcome
    return _CARD.format(
        parameters=outcome.parameters,
        vocabulary=figures.vocabulary,
        seed=figures.seed,
        documents=figures.documents,
        distinct_tokens=figures.distinct_tokens,
        entities=figures.entities,
        facts=figures.facts,
        tokens=outcome.tokens,
        validation=outcome.validation_loss,
        training=outcome.training_loss,
        right=figures.before_tuning.right,
        total=figures.before_tuning.total,
        known=figures.casually_known.right,
        asked=figures.casually_known.total,
        seconds=outcome.seconds,
        device=figures.device,
        train_rows=figures.train_rows,
        held_out_rows=figures.held_out_rows,
    )
