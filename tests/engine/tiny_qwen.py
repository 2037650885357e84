"""Tiny random Qwen3 models in GGUF, made on the spot, whose answers are known well enough to test against.

Purpose: a real engine needs a real file; this one is made in under a second, needs no download and holds no
trained weights. Four styles differ only in a few entries of the embedding and the output matrix:

* ``biased``: random printable ASCII that never ends by itself, so every length limit is reached exactly;
* ``chain``: always the same 24 words and then the end token, 25 completion tokens;
* ``tool``: opens a tool call at once; with ``tools`` in the request the grammar makes it valid;
* ``random``: no bias at all; ends by chance, may break UTF-8; its embeddings alone differ visibly.

How: channel 0 of every embedding row is constant, so column 0 of the output matrix is a bias per token.

Failure behaviour: a tokenizer that did not come out as the styles need it, or a shape too narrow for a
style, raises ``ValueError``; a folder that cannot be written raises ``OSError``. Nothing half-made is
returned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

Style = Literal["biased", "chain", "tool", "random"]
Matrix = npt.NDArray[np.float32]

CHAIN_TEXT: Final = (
    "quiet water gathers behind the weir then spills over its stone crest "
    "while every drop that passes is counted once and flows on downstream"
)
"""What every answer of the ``chain`` style says: 24 different words, each one token."""

CHAIN_TOKENS: Final = 25
"""Completion tokens of a ``chain`` answer: its words and the end token."""

CONTEXT_LENGTH: Final = 4096
"""Longest context the models claim, in tokens; a server may give its slots less."""

END: Final = "<|im_end|>"
_CONTROL: Final = ("<|endoftext|>", "<|im_start|>", END)
_MARKERS: Final = ("<tool_call>", "</tool_call>")
_MERGED_VOCABULARY: Final = 507  # 256 bytes and 251 merges; the five tokens above make it 512

_QWEN2_PIECES: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pieces Qwen2 and later split text into before BPE; llama.cpp's name for the rule is "qwen2"."""

_PROSE: Final = """\
The gateway listens on one port and sends each question to the machine that can answer it soonest.
Some machines belong to the house, others are rented by the token; both report their work in the same numbers.
When a machine falls silent another takes its place before the first letter has reached the reader.
Rain in the hills, snow on the pass, a slow brook through the meadow: all of it arrives here in the end.
A careful keeper writes down what came in, what went out, and what was spilled during the night.
{"name": "measure", "arguments": {"place": "upper gate", "unit": "litre"}}
[{"role": "user", "content": "How much water is there today?"}, {"role": "assistant", "content": "Enough."}]
def level(gate: str, day: int) -> float: return sum(reading.height for reading in gauges[gate][day])
"""

_CHAT_TEMPLATE: Final = """\
{%- if tools %}{{- '<|im_start|>system\\nFunctions at hand, one JSON object a line:\\n' }}
{%- for tool in tools %}{{- (tool | tojson) + '\\n' }}{%- endfor %}
{{- 'Call one as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a model: widths in channels, ``n_layer`` in blocks; more of these make a slower model."""

    n_layer: int = 2
    n_embd: int = 64
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 16
    n_ff: int = 128


SLOW: Final = Shape(n_layer=200, n_embd=32, n_head=2, n_head_kv=1, n_ff=32)
"""Some 150 tokens a second on one core: slow enough to leave in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class TinyQwen:
    """A model file on disk, with what a test must know of it."""

    path: Path
    tokenizer_path: Path
    style: Style
    shape: Shape
    expected_text: str | None
    """The whole answer to any chat, where the style has one."""

    def count(self, text: str) -> int:
        """Tokens of ``text`` counted independently of the engine; a special token counts as one."""
        tokenizer = Tokenizer.from_file(str(self.tokenizer_path))
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    def count_chat(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Prompt tokens of a chat of plain text messages without tools, the opened answer included."""
        turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
        return self.count(turns + "<|im_start|>assistant\n")


def make_tiny_qwen(folder: Path, *, style: Style = "biased", shape: Shape | None = None) -> TinyQwen:
    """Write ``<style>-<layers>.gguf`` and its tokenizer into ``folder``; same arguments, same bytes.

    Raises:
        ValueError: the shape is too narrow for the style.
        OSError: the folder cannot be written.
    """
    shape = shape or Shape()
    tokenizer = _trained_tokenizer()
    tensors = _tensors(style, shape, tokenizer, np.random.default_rng(1))
    path = folder / f"{style}-{shape.n_layer}.gguf"
    tokenizer_path = path.with_suffix(".tokenizer.json")
    tokenizer.save(str(tokenizer_path))
    writer = gguf.GGUFWriter(path, "qwen3")
    _write_header(writer, shape, tokenizer)
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expected_text = CHAIN_TEXT if style == "chain" else None
    return TinyQwen(path, tokenizer_path, style, shape, expected_text)


def _trained_tokenizer() -> Tokenizer:
    """A byte-level BPE of 512 tokens with every word of the chain; llama.cpp has no normaliser, nor this."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGED_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CHAIN_TEXT] * 20 + [_PROSE], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _MARKERS])
    if tokenizer.get_vocab_size() != _MERGED_VOCABULARY + len(_CONTROL) + len(_MARKERS):
        raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens")
    if len(set(tokenizer.encode(CHAIN_TEXT).ids)) != CHAIN_TOKENS - 1:
        raise ValueError("the words of the chain are not one different token each")
    return tokenizer


def _write_header(writer: gguf.GGUFWriter, shape: Shape, tokenizer: Tokenizer) -> None:
    """Set every key llama.cpp asks for in a Qwen3 file."""
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = _vocabulary(tokenizer)
    kinds = dict.fromkeys(_CONTROL, gguf.TokenType.CONTROL) | dict.fromkeys(_MARKERS, gguf.TokenType.USER_DEFINED)
    writer.add_name("Tiny Qwen3")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The tokens in the order of their ids."""
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _tensors(style: Style, shape: Shape, tokenizer: Tokenizer, random: np.random.Generator) -> dict[str, Matrix]:
    """All tensors by name, shape (out, in): normal(0, 0.02), norms of one, then the entries of the style."""

    def normal(*size: int) -> Matrix:
        return random.normal(0.0, 0.02, size).astype(np.float32)

    def ones(size: int) -> Matrix:
        return np.ones(size, dtype=np.float32)

    width, queries, keys = shape.n_embd, shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    n_vocab = tokenizer.get_vocab_size()
    tensors = {
        "token_embd": normal(n_vocab, width),
        "output": normal(n_vocab, width),
        "output_norm": ones(width),
    }
    for layer in range(shape.n_layer):
        block = {
            "attn_norm": ones(width),
            "attn_q": normal(queries, width),
            "attn_k": normal(keys, width),
            "attn_v": normal(keys, width),
            "attn_output": normal(width, queries),
            "attn_q_norm": ones(shape.head_dim),
            "attn_k_norm": ones(shape.head_dim),
            "ffn_norm": ones(width),
            "ffn_gate": normal(shape.n_ff, width),
            "ffn_up": normal(shape.n_ff, width),
            "ffn_down": normal(width, shape.n_ff),
        }
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in block.items()}
    _apply_style(style, tokenizer, tensors["token_embd"], tensors["output"])
    return tensors


def _apply_style(style: Style, tokenizer: Tokenizer, embedding: Matrix, output: Matrix) -> None:
    """Set, in place, the entries of both matrices that make the model answer in its style."""
    if style == "random":
        return
    embedding[:, 0] = 1.0
    ids = tokenizer.get_vocab()
    if style == "chain":
        _apply_chain([*tokenizer.encode(CHAIN_TEXT).ids, ids[END]], embedding, output)
        return
    for token in range(len(ids)):
        if not _is_printable_ascii(tokenizer.decode([token], skip_special_tokens=False), token):
            output[token, 0] = -8.0
    if style == "tool":
        _apply_tool_call(ids, embedding, output)


def _apply_tool_call(ids: dict[str, int], embedding: Matrix, output: Matrix) -> None:
    """Make the opened answer begin a call, and the end of that call end the answer.

    A newline calls ``<tool_call>`` and that a newline again: the pair that switches the engine's grammar
    on. From there the grammar leaves the choice only inside values; a quote has some weight, so that
    strings stay short, and a brace calls ``</tool_call>``, which calls the end, as soon as the grammar lets
    them.
    """
    newline = ids["Ċ"]  # U+000A in the byte alphabet of the tokenizer
    opening, closing = (ids[token] for token in _MARKERS)
    braces = [token for text, token in ids.items() if text.endswith("}")]
    embedding[:, 1:5] = 0.0
    for channel, (callers, called) in enumerate(
        (([newline], opening), ([opening], newline), (braces, closing), ([closing], ids[END])), start=1
    ):
        embedding[callers, channel] = 1.0
        output[called, channel] = 16.0
    output[ids['"'], 0] = 0.4


def _is_printable_ascii(text: str, token: int) -> bool:
    """Whether a token is text that every client can show; the five special tokens, last in order, are not."""
    return token < _MERGED_VOCABULARY and text.isascii() and text.isprintable()


def _apply_chain(chain: list[int], embedding: Matrix, output: Matrix) -> None:
    """Make each token of ``chain`` call the next, and every other token the first.

    A channel of its own for each word keeps the words apart however wide the rest of the noise is: after
    the norm the next word leads every other token by some 20 in the logit, at any sampling temperature in
    use.
    """
    words = chain[:-1]
    if embedding.shape[1] < len(words) + 2:
        raise ValueError(f"the chain style needs at least {len(words) + 2} channels, got {embedding.shape[1]}")
    embedding[:, 1 : len(words) + 1] = 0.0
    embedding[words, 1:] = 0.0
    output[chain[0], 0] = 4.0
    for channel, (word, following) in enumerate(pairwise(chain), start=1):
        embedding[word, channel] = 1.0
        output[following, channel] += 8.0
