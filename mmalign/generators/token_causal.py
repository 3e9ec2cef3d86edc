"""Prompt and media tokens in one causal stream: language models over codec tokens, and Janus with its image tokens."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.token_layouts import Arguments, Cursor, TokenLayout, padded


class CausalStream(TokenLayout):
    """What they share: the prompt, left-padded, then one media token after another.

    Both paddings of a prompt come to the same: positions count its tokens alone.
    """

    sequential = True

    def conditional(self, prompts: Sequence[Sequence[int]]) -> Arguments:
        """Ids and mask [B, P]."""
        ids, mask = padded(prompts, left=True, device=self.model.device)
        return {"ids": ids, "mask": mask}

    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """The negative prompt for every sample."""
        return self.conditional([negative] * len(prompts))

    @abstractmethod
    def embed_prompt(self, ids: Tensor) -> Tensor:
        """[B, P, D] of prompt ids."""

    @abstractmethod
    def embed(self, tokens: Tensor, codebook: Tensor) -> Tensor:
        """[B, L, D] of media tokens [B, L], each of a codebook [L]."""

    @abstractmethod
    def hidden(self, **inputs: Any) -> Any:
        """The transformer's output on ``inputs_embeds``."""

    @abstractmethod
    def head(self, hidden: Tensor, codebook: Tensor) -> Tensor:
        """Logits [B, L, V] of hidden states [B, L, D], each predicting a token of a codebook [L]."""

    def steps(self, inputs: Tensor, arguments: Arguments) -> Tensor:
        """The frames follow one another, each codebook by codebook."""
        B, S, K = inputs.shape
        flat = inputs.reshape(B, S * K)
        codebook = torch.arange(S * K, device=inputs.device) % K
        prompt, mask = self.embed_prompt(arguments["ids"]), arguments["mask"]
        embeds = torch.cat([prompt, self.embed(flat[:, :-1], codebook[:-1])], 1)
        mask = torch.cat([mask, mask.new_ones(B, S * K - 1)], 1)
        output = self.hidden(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions(mask), use_cache=False
        )
        states = output.last_hidden_state[:, prompt.shape[1] - 1 :]
        return self.head(states, codebook).unflatten(1, (S, K))

    def cursor(self, arguments: Arguments) -> Cursor:
        """One token at a time."""
        return CausalCursor(self, arguments)


class CausalCursor(Cursor):
    """Keeps keys and values of the stream."""

    def __init__(self, layout: CausalStream, arguments: Arguments) -> None:
        self.layout, self.arguments = layout, arguments
        self.mask = arguments["mask"]
        self.past: Any = None
        self.done = 0

    def next(self, last: Tensor | None) -> Tensor:
        """Of the one codebook that comes next."""
        layout, K = self.layout, self.layout.codebooks
        if last is None:
            embeds = layout.embed_prompt(self.arguments["ids"])
        else:
            embeds = layout.embed(last, torch.tensor([self.done % K], device=last.device))
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(last), 1)], 1)
            self.done += 1
        output = layout.hidden(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=positions(self.mask)[:, -embeds.shape[1] :],
            past_key_values=self.past,
            use_cache=True,
        )
        self.past = output.past_key_values
        codebook = torch.tensor([self.done % K], device=embeds.device)
        return layout.head(output.last_hidden_state[:, -1:], codebook)


class CausalTokens(CausalStream):
    """A causal language model whose vocabulary also holds codec tokens.

    Code c of codebook k is the entry ``first_code + k * codes + c``; the model chooses among these, and between frames
    also the entry that ends a sample. In tokens [B, T, K] that end is the number ``codes``.

    Args:
        model: any causal language model of transformers.
        first_code: id of code 0 of codebook 0.
        codes: of each codebook.
        codebooks: K, interleaved frame by frame.
        end_id: id of the entry that ends a sample; None where all have one length.

    Raises:
        ConfigError: the vocabulary is too small.
    """

    def __init__(
        self, model: Any, *, first_code: int, codes: int, codebooks: int = 1, end_id: int | None = None
    ) -> None:
        super().__init__(model)
        size = model.get_output_embeddings().weight.shape[0]
        last = first_code + codebooks * codes - 1
        if first_code < 0 or codes < 1 or codebooks < 1 or last >= size or not -1 < (end_id or 0) < size:
            raise ConfigError(
                f"codes {first_code} to {last} and end_id {end_id}: the model's vocabulary has 0 to {size - 1}"
            )
        self.delays = (0,) * codebooks
        self.vocabulary = codes if end_id is None else codes + 1
        self.eos = None if end_id is None else codes
        ids = first_code + torch.arange(codebooks)[:, None] * codes + torch.arange(codes)
        if end_id is not None:
            ids = torch.cat([ids, torch.full((codebooks, 1), end_id)], 1)
        self.ids = ids
        """[K, V], of each token."""

    def embed_prompt(self, ids: Tensor) -> Tensor:
        """The model's own embeddings."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    def embed(self, tokens: Tensor, codebook: Tensor) -> Tensor:
        """Of the vocabulary entries that the tokens are."""
        return self.embed_prompt(self.ids.to(tokens.device)[codebook, tokens])

    def hidden(self, **inputs: Any) -> Any:
        """The model without its head."""
        return self.model.base_model(**inputs)

    def head(self, hidden: Tensor, codebook: Tensor) -> Tensor:
        """The entries of a codebook, out of all."""
        logits = self.model.get_output_embeddings()(hidden)
        ids = self.ids.to(hidden.device)[codebook]
        return logits.gather(2, ids.expand(len(hidden), *ids.shape))


class JanusTokens(CausalStream):
    """Image tokens of Janus, which have embeddings and a head of their own; a picture has a fixed number of them.

    Args:
        model: ``JanusForConditionalGeneration``.
    """

    trained = ("model.language_model.",)
    delays = (0,)

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vocabulary = model.config.vq_config.num_embeddings
        self.frames = model.model.vision_model.config.num_image_tokens

    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """The prompt with its words blanked: all but the tokens that begin the text and the picture.

        Raises:
            ConfigError: a negative prompt, which the class does not have, or no id to blank with.
        """
        config = self.model.generation_config
        kept = [config.bos_token_id, (getattr(config, "generation_kwargs", None) or {}).get("boi_token_id")]
        if config.pad_token_id is None or None in kept:
            raise ConfigError(
                "Janus blanks its prompt for guidance: set pad_token_id, bos_token_id and "
                "generation_kwargs={'boi_token_id': ...} of model.generation_config"
            )
        ids = conditional["ids"]
        words = ~torch.isin(ids, torch.tensor(kept, device=ids.device))
        return {"ids": ids.masked_fill(words, config.pad_token_id), "mask": conditional["mask"]}

    def embed_prompt(self, ids: Tensor) -> Tensor:
        """Of the text."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        return embeds

    def embed(self, tokens: Tensor, codebook: Tensor) -> Tensor:
        """Of image tokens."""
        embeds: Tensor = self.model.prepare_embeddings_for_image_generation(tokens)
        return embeds

    def hidden(self, **inputs: Any) -> Any:
        """The language model."""
        return self.model.model.language_model(**inputs)

    def head(self, hidden: Tensor, codebook: Tensor) -> Tensor:
        """The head of image tokens."""
        logits: Tensor = self.model.model.generation_head(hidden)
        return logits


def positions(mask: Tensor) -> Tensor:
    """Place of every token among those of its row [B, L], from 0."""
    return (mask.cumsum(1) - 1).clamp_min(0)
