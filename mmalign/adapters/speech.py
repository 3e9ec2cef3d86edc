"""A generator of speech: a language model over codec tokens, with the codec that makes them sound."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.adapters.speech_codec import SpeechCodec
from mmalign.errors import ConfigError
from mmalign.files import whole_folder
from mmalign.generators.conditioning import Conditioning
from mmalign.generators.token_causal import CausalTokens
from mmalign.generators.token_layouts import IGNORED, stack_tokens
from mmalign.generators.tokens import TokenGenerator
from mmalign.media import Modality, Speech
from mmalign.remote_code import remote_code
from mmalign.weights import check_finite

SETTINGS_NAME, CODEC_FOLDER = "speech.json", "codec"


class SpeechAdapter:
    """Text to speech: prompts to sound, sound to tokens and back, and the model's LoRA.

    Args:
        model: a causal language model of transformers whose vocabulary holds the codec's tokens.
        tokenizer: of the text.
        codec: tokens to sound.
        first_code: id of the codec's token 0.
        end_id: id of what ends a sample; None where all have one length.
        template: how a prompt is written for the model.
        frames: most tokens of a sample.

    Raises:
        ConfigError: the model's vocabulary does not hold the codec's tokens, or ``frames`` is not positive.
    """

    modality: Modality = "speech"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        codec: SpeechCodec,
        *,
        first_code: int,
        end_id: int | None = None,
        template: str = "{prompt}",
        frames: int = 160,
    ) -> None:
        if frames < 1:
            raise ConfigError(f"frames = {frames}: expected a positive number")
        layout = CausalTokens(model, first_code=first_code, codes=codec.codes, end_id=end_id)
        self.generator = TokenGenerator(model, tokenizer, layout=layout, template=template)
        self.codec, self.frames = codec, frames
        self._settings = {
            "class": type(self).__name__,
            "first_code": first_code,
            "end_id": end_id,
            "template": template,
            "frames": frames,
        }

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        batch_size: int = 32,
        frames: int | None = None,
        guidance: float | None = None,
        **options: Any,
    ) -> list[Speech]:
        """Speak each prompt with its seed.

        Args:
            prompts: N texts, which become the transcripts.
            seeds: N; in fp32 a sound depends on its own prompt and seed, not on its batch.
            batch_size: sounds drawn at once.
            frames: most tokens of a sample, in place of the adapter's own.
            guidance: scale; None or 1 is off.
            options: ``temperature``, ``top_k``, ``top_p``.
        """
        tokens = self.tokens(
            prompts, seeds=seeds, batch_size=batch_size, frames=frames, guidance=guidance, **options
        )
        return self.decode(tokens, transcripts=prompts)

    def tokens(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        batch_size: int = 32,
        frames: int | None = None,
        guidance: float | None = None,
        **options: Any,
    ) -> Tensor:
        """The tokens [N, T, 1] of what ``generate`` speaks.

        Raises:
            ConfigError: an option that a model of tokens has not.
        """
        unknown = options.keys() - {"temperature", "top_k", "top_p"}
        if unknown:
            name = min(unknown)
            raise ConfigError(
                f"{name} = {options[name]} would be ignored: this model draws token by token, and has frames, "
                "guidance, temperature, top_k and top_p"
            )
        scale = None if guidance == 1 else guidance
        drawn = []
        for i in range(0, len(prompts), batch_size):
            rows = slice(i, i + batch_size)
            conditioning = self.generator.condition(prompts[rows], guidance=scale)
            part = self.generator.rollout(
                conditioning, seeds=seeds[rows], frames=frames or self.frames, guidance=scale, **options
            )
            drawn.append(part.tokens)
        return stack_tokens(drawn)

    def condition(self, prompts: Sequence[str], **options: Any) -> Conditioning:
        """Conditioning of prompts without guidance; no option of drawing changes it."""
        del options
        return self.generator.condition(prompts)

    def values(self, medium: Speech) -> Tensor:
        """The waveform [1, N] in [-1, 1]."""
        return medium.waveform

    def encode(self, media: Sequence[Speech]) -> Tensor:
        """Tokens [B, T, 1] of sounds, each with its end where the model has one.

        Raises:
            ConfigError: a sound has another rate or several channels.
        """
        codes = [self.codec.encode(sound) for sound in media]
        end = self.generator.layout.eos
        if end is not None:
            codes = [torch.cat([code, code.new_tensor([end])]) for code in codes]
        return stack_tokens([code[:, None] for code in codes])

    def decode(self, tokens: Tensor, *, transcripts: Sequence[str] | None = None) -> list[Speech]:
        """Sounds of tokens [B, T, 1]."""
        rate, spoken = self.codec.settings.sample_rate_hz, []
        for row, line in enumerate(tokens[..., 0].cpu()):
            codes = line[(line != IGNORED) & (line != self.codec.codes)]
            transcript = None if transcripts is None else transcripts[row]
            spoken.append(Speech(self.codec.decode(codes), rate, transcript=transcript))
        return spoken

    def save_lora(self, folder: Path | str) -> None:
        """Write a PEFT folder, for plain ``model.load_adapter(folder)``."""
        self.generator.save_lora(Path(folder))

    def load_lora(self, folder: Path | str) -> None:
        """Load a PEFT folder as the policy; refuses one of which nothing fits."""
        self.generator.load_lora(Path(folder))

    def save(self, folder: Path | str) -> None:
        """Write model, tokenizer, codec and settings, as safetensors and JSON.

        Raises:
            ConfigError: the model has a LoRA, which has a folder of its own.
        """
        if self.generator.kept.layers:
            raise ConfigError(
                "the model has a LoRA: save_lora writes that, and save belongs to the model without it"
            )
        folder = Path(folder)
        check_finite(self.generator.model.state_dict(), folder)
        with whole_folder(folder, last=SETTINGS_NAME) as unfinished:
            self.generator.model.save_pretrained(unfinished)
            self.generator.tokenizer.save_pretrained(unfinished)
            self.codec.save(unfinished / CODEC_FOLDER)
            (unfinished / SETTINGS_NAME).write_text(json.dumps(self._settings, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, *, device: str, dtype: Any, **changes: Any) -> "SpeechAdapter":
        """Read what ``save`` wrote.

        Args:
            folder: of model, tokenizer, codec and settings.
            device: where the model computes; the codec stays on the CPU.
            dtype: of the frozen weights.
            changes: settings to take in place of the folder's, such as ``frames``.

        Raises:
            ConfigError: a file is missing, or holds something else.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        code = remote_code()
        try:
            settings = json.loads((folder / SETTINGS_NAME).read_text())
            settings = {**settings, **changes}
            settings.pop("class")
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=code
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"model '{folder}': no speech model that can be loaded here ({reason})"
            ) from None
        codec = SpeechCodec.load(folder / CODEC_FOLDER)
        try:
            return cls(model.to(device), tokenizer, codec, **settings)
        except TypeError as error:
            raise ConfigError(
                f"{folder / SETTINGS_NAME}: not the settings of a speech model ({error})"
            ) from None
