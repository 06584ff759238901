"""Train the Korean byte-level BPE tokenizer and save it for transformers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY: Final = 3072
CONTEXT: Final = 256
UNKNOWN: Final = "<|unk|>"
PADDING: Final = "<|pad|>"
END: Final = "<|endoftext|>"
SEPARATOR: Final = "<|sep|>"
SPECIALS: Final = (UNKNOWN, PADDING, END, SEPARATOR)
"""The special tokens, in the order of polyglot-ko's ids."""

PADDING_ID: Final = SPECIALS.index(PADDING)
END_ID: Final = SPECIALS.index(END)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn a vocabulary from the texts."""
    tokenizer = Tokenizer(models.BPE())
    # NFC, because macOS hands out Hangul in pieces that no merge would match.
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that `AutoTokenizer.from_pretrained` reads.

    The configuration is written by hand, because transformers 5 would name a
    class in it that earlier versions do not know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNKNOWN,
        "pad_token": PADDING,
        "bos_token": END,
        "eos_token": END,
        "sep_token": SEPARATOR,
        "model_max_length": CONTEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
