"""What a CLIP sees of single patches and reads of single words, before it sums them up in one vector."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.errors import ConfigError
from mmalign.rewards.clip_encoder import ClipEncoder


def pieces(text: str) -> tuple[str, ...]:
    """The words of a text, each with the space before it; joined they are the text.

    >>> pieces("a red  star ")
    ('a', ' red', '  star ')
    """
    return tuple(re.findall(r"\s*\S+(?:\s+$)?", text))


class DenseClip:
    """Features of patches and of words by an open_clip CLIP.

    A word's feature is the mean of its tokens' in the last layer of the text tower, which in most CLIPs has seen only
    what stands before; a patch's is that of a layer of the picture tower. Words that do not fit into what the text
    tower reads have none.

    Args:
        encoder: an open_clip model with a vision transformer and a text transformer.
        name: of the reward, for errors.
        layer: of the picture tower, counted as Python's lists; -1 is the last.
        device: where the model runs.

    Raises:
        ConfigError: the model has no patches or no tokens that can be reached, or not so many layers.
    """

    def __init__(self, encoder: ClipEncoder, *, name: str, layer: int = -1, device: str = "cpu") -> None:
        self.encoder, self.layer, self.device = encoder, layer, device
        model: Any = encoder.model
        blocks = getattr(getattr(getattr(model, "visual", None), "transformer", None), "resblocks", None)
        norm = getattr(model, "ln_final", None) or getattr(getattr(model, "text", None), "ln_final", None)
        tokenize = getattr(encoder.text.tokenize, "tokenizer", None)
        if blocks is None or norm is None or tokenize is None or not hasattr(model, "encode_text"):
            raise ConfigError(
                f"'{name}' does not show what it sees of single patches and words; heads for those take an open_clip "
                "model with transformers of its own for both, such as embedded/shapes-clip"
            )
        if not -len(blocks) <= layer < len(blocks):
            raise ConfigError(f"layer = {layer}, but the picture tower of '{name}' has {len(blocks)}")
        self.model, self._block, self._norm, self._tokenizer = model, blocks[layer], norm, tokenize
        self.grid: tuple[int, int] = tuple(model.visual.grid_size)
        self.patch_width: int = model.visual.transformer.width
        self.word_width: int = norm.weight.shape[0]
        self._start, self._end, self._padding, self.context = self._frame()

    def patches(self, pixels: Tensor) -> Tensor:
        """[B, P, D] of pictures [B, 3, h, w] as the model takes them, row by row; with gradient."""
        with _seen(self._block) as found:
            self.model.encode_image(pixels)
        return found[0][:, -self.grid[0] * self.grid[1] :]

    def words(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features [B, W, D] of the words of prompts, with gradient, and which of them there are, booleans [B, W]."""
        rows, owners = [], []
        for prompt in prompts:
            ids, owner = self._tokens(prompt)
            rows.append(ids)
            owners.append(owner)
        count = max(1, max((len(pieces(prompt)) for prompt in prompts), default=1))
        owned = torch.tensor(owners, device=self.device)
        with _seen(self._norm) as found:
            self.model.encode_text(torch.tensor(rows, device=self.device))
        # [B, L, W]: which word a token belongs to; the tokens of none belong to no column.
        member = (owned[..., None] == torch.arange(count, device=self.device)).to(found[0].dtype)
        tokens = member.sum(1)
        return (member.transpose(1, 2) @ found[0]) / tokens.clamp(min=1)[..., None], tokens > 0

    def _tokens(self, prompt: str) -> tuple[list[int], list[int]]:
        """Token ids [L] of a prompt, and the word of each, -1 for none; each word is tokenised by itself."""
        ids, owner = list(self._start), [-1] * len(self._start)
        for number, piece in enumerate(pieces(prompt)):
            of_word = self._encode(piece.strip())
            if len(ids) + len(of_word) + 1 > self.context:
                break
            ids += of_word
            owner += [number] * len(of_word)
        rest = self.context - len(ids) - 1
        return [*ids, self._end, *[self._padding] * rest], [*owner, *[-1] * (rest + 1)]

    def _encode(self, word: str) -> list[int]:
        inner = getattr(self._tokenizer, "tokenizer", None)
        if inner is not None:
            ids: list[int] = inner.encode(word.lower(), add_special_tokens=False)
            return ids
        return list(self._tokenizer.encode(word))

    def _frame(self) -> tuple[list[int], int, int, int]:
        """What stands before the first token, behind the last, and behind that; and how many there are."""
        row = self._tokenizer(["a"])[0].tolist()
        word = self._encode("a")
        start = next(i for i in range(len(row)) if row[i : i + len(word)] == word)
        return row[:start], row[start + len(word)], row[-1], len(row)


@contextmanager
def _seen(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module puts out while this lasts."""
    found: list[Tensor] = []

    def listen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output)

    handle = module.register_forward_hook(listen)
    try:
        yield found
    finally:
        handle.remove()
