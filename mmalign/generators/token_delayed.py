"""A text encoder and a decoder whose codebooks lag one behind the other: MusicGen and Dia."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.generators.token_layouts import Arguments, Cursor, TokenLayout, padded


class DelayedTokens(TokenLayout):
    """What they share: one step for all codebooks, and logits that come as [B * K, S, V]."""

    start: int
    """What every codebook is fed first."""

    def conditional(self, prompts: Sequence[Sequence[int]]) -> Arguments:
        """The encoder's states [B, P, D] and their mask [B, P]; the encoder is frozen, so it runs once."""
        ids, mask = padded(prompts, left=False, device=self.model.device)
        encoder = self.model.get_encoder()
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return {"states": states, "mask": mask}

    def steps(self, inputs: Tensor, arguments: Arguments) -> Tensor:
        """All steps at once, each input being the step before."""
        begin = inputs.new_full((len(inputs), 1, inputs.shape[2]), self.start)
        return self.call(torch.cat([begin, inputs[:, :-1]], 1), arguments)[0]

    def call(self, inputs: Tensor, arguments: Arguments, *, past: Any = None, cache: bool = False) -> Any:
        """Logits [B, S, K, V] of what follows the inputs [B, S, K], and the cache."""
        B, _, K = inputs.shape
        output = self.model(
            encoder_outputs=(arguments["states"],),
            attention_mask=arguments["mask"],
            decoder_input_ids=self.decoder_ids(inputs),
            past_key_values=past,
            use_cache=cache,
        )
        return output.logits.unflatten(0, (B, K)).transpose(1, 2), output.past_key_values

    def decoder_ids(self, inputs: Tensor) -> Tensor:
        """Steps [B, S, K] as the class takes them."""
        return inputs

    def cursor(self, arguments: Arguments) -> Cursor:
        """One step at a time."""
        return DelayedCursor(self, arguments)


class DelayedCursor(Cursor):
    """Keeps keys and values of decoder and cross-attention."""

    def __init__(self, layout: DelayedTokens, arguments: Arguments) -> None:
        self.layout, self.arguments = layout, arguments
        self.past: Any = None

    def next(self, last: Tensor | None) -> Tensor:
        """Of all codebooks."""
        if last is None:
            states = self.arguments["states"]
            size = (len(states), self.layout.codebooks)
            last = torch.full(size, self.layout.start, dtype=torch.long, device=states.device)
        logits, self.past = self.layout.call(last[:, None], self.arguments, past=self.past, cache=True)
        return logits[:, 0]


class MusicgenTokens(DelayedTokens):
    """MusicGen: each codebook lags one step behind the one before, in stereo each pair; samples have one length.

    Args:
        model: ``MusicgenForConditionalGeneration`` or its melody sibling without a melody.
    """

    trained = ("decoder.",)

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        decoder = model.config.decoder
        channels = decoder.audio_channels
        self.delays = tuple(k // channels for k in range(decoder.num_codebooks))
        self.vocabulary = decoder.vocab_size
        self.start = self.before = self.after = decoder.pad_token_id

    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """No text at all: zeros, masked."""
        return {name: torch.zeros_like(tensor) for name, tensor in conditional.items()}

    def decoder_ids(self, inputs: Tensor) -> Tensor:
        """[B * K, S]."""
        return inputs.transpose(1, 2).flatten(0, 1)


class DiaTokens(DelayedTokens):
    """Dia: delays of its own, and an end in the first codebook.

    Its class draws in a way of its own, which is no temperature, top_k or top_p: an end only where it is the likeliest
    token, and under guidance the conditional branch among the likeliest of the guided one. Here an end is drawn like
    any token, and guidance is that of all others: scale 1 is the conditional branch, Dia's own scale plus one.

    Args:
        model: ``DiaForConditionalGeneration``.
    """

    trained = ("model.decoder.",)

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        decoder = model.config.decoder_config
        self.delays = tuple(model.config.delay_pattern)
        self.vocabulary = decoder.vocab_size
        self.start = self.before = decoder.bos_token_id
        self.after = decoder.pad_token_id
        self.eos = decoder.eos_token_id

    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """Zeros in place of the text, as long as it is."""
        return self.conditional([[0] * len(prompt) for prompt in prompts])
