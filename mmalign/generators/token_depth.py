"""A backbone over frames, and a small decoder over the codebooks of each frame: CSM."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.generators.token_causal import positions
from mmalign.generators.token_layouts import Arguments, Cursor, TokenLayout, padded


class CsmTokens(TokenLayout):
    """CSM: the backbone draws the first codebook of a frame, the depth decoder the others, one given the last.

    A frame of nothing but the end token is the last. The class has no guidance.

    Args:
        model: ``CsmForConditionalGeneration``.
    """

    trained = ("backbone_model.", "depth_decoder.")
    sequential = True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.delays = (0,) * model.config.num_codebooks
        self.vocabulary = model.config.vocab_size
        self.after = model.config.codebook_pad_token_id
        self.end = model.config.codebook_eos_token_id

    def ends(self, frame: Tensor) -> Tensor:
        """As in the class, where the last codebook does not matter."""
        return (frame[:, :-1] == self.end).all(1)

    def conditional(self, prompts: Sequence[Sequence[int]]) -> Arguments:
        """Ids and mask [B, P] of the text."""
        ids, mask = padded(prompts, left=True, device=self.model.device)
        return {"ids": ids, "mask": mask}

    def unconditional(
        self, prompts: Sequence[Sequence[int]], conditional: Arguments, *, negative: Sequence[int]
    ) -> Arguments:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("CSM was trained without an unconditional branch; leave guidance out")

    def steps(self, inputs: Tensor, arguments: Arguments) -> Tensor:
        """The backbone over all frames, then the depth decoder over the codebooks of each."""
        B, S, K = inputs.shape
        prompt, mask = self.model.embed_text_tokens(arguments["ids"]), arguments["mask"]
        embeds = torch.cat([prompt, self.model.backbone_model.embed_tokens(inputs[:, :-1])], 1)
        mask = torch.cat([mask, mask.new_ones(B, S - 1)], 1)
        output = self.model.backbone_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions(mask), use_cache=False
        )
        states = output.last_hidden_state[:, prompt.shape[1] - 1 :]
        first = self.model.lm_head(states)[:, :, None]
        if K == 1:
            return first
        # A place for the backbone's state, then every codebook but the last.
        ids = torch.nn.functional.pad(inputs[..., :-1].reshape(B * S, K - 1), (1, 0))
        others = self.model.depth_decoder(
            input_ids=ids, backbone_last_hidden_state=states.reshape(B * S, -1), use_cache=False
        ).logits
        return torch.cat([first, others.unflatten(0, (B, S))], 2)

    def cursor(self, arguments: Arguments) -> Cursor:
        """One codebook at a time."""
        return CsmCursor(self, arguments)


class CsmCursor(Cursor):
    """Keeps keys and values of the backbone, and of the depth decoder within a frame."""

    def __init__(self, layout: CsmTokens, arguments: Arguments) -> None:
        self.model, self.codebooks = layout.model, layout.codebooks
        self.arguments, self.mask = arguments, arguments["mask"]
        self.past: Any = None
        self.depth: Any = None
        self.frame: list[Tensor] = []

    def next(self, last: Tensor | None) -> Tensor:
        """Of the one codebook that comes next."""
        if last is None:
            return self._first(self.model.embed_text_tokens(self.arguments["ids"]))
        self.frame.append(last)
        if len(self.frame) == self.codebooks:
            frame, self.frame, self.depth = torch.cat(self.frame, 1), [], None
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(frame), 1)], 1)
            return self._first(self.model.backbone_model.embed_tokens(frame[:, None]))
        if len(self.frame) == 1:
            inputs = {
                "input_ids": torch.nn.functional.pad(last, (1, 0)),
                "backbone_last_hidden_state": self.state,
            }
        else:
            inputs = {"input_ids": last}
        output = self.model.depth_decoder(
            **inputs, past_key_values=self.depth, use_cache=True, logits_to_keep=1
        )
        self.depth = output.past_key_values
        logits: Tensor = output.logits
        return logits

    def _first(self, embeds: Tensor) -> Tensor:
        output = self.model.backbone_model(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=positions(self.mask)[:, -embeds.shape[1] :],
            past_key_values=self.past,
            use_cache=True,
        )
        self.past, self.state = output.past_key_values, output.last_hidden_state[:, -1]
        logits: Tensor = self.model.lm_head(self.state)[:, None]
        return logits
