"""A judge that runs here: any image-, video- or audio-text-to-text model of transformers with a chat template."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.remote_code import remote_code
from mmalign.rewards.base import OK
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.vlm_inputs import encode, parts_of, render
from mmalign.rewards.vlm_judge import Choices, Question, Words, Written
from mmalign.rewards.vlm_prefix import common_start, continue_from, together
from mmalign.rewards.weights import advice, find, local_path


class LocalJudge:
    """Asks a model of transformers, in batches.

    Several questions about the same media are answered from one reading: the keys and values of the part that they
    share, which holds all media, are computed once (``share``).

    Args:
        model: a causal model with a vision or sound part, such as ``AutoModelForImageTextToText`` gives.
        processor: its processor, with a chat template.
        device: where the model runs.
        batch_size: questions in one forward pass.
        share: read media that several questions share once.
        frames: of a video, shown as pictures; None to show it as a video to models that take one.
        system: a system message before every question.
        chat: further arguments of the chat template.

    Raises:
        ConfigError: the processor has no chat template.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        device: str = "cpu",
        batch_size: int = 16,
        share: bool = True,
        frames: int | None = None,
        system: str | None = None,
        chat: dict[str, Any] | None = None,
    ) -> None:
        if getattr(processor, "chat_template", None) is None:
            raise ConfigError(
                f"this judge's processor ({type(processor).__name__}) has no chat template; save one with it"
            )
        self.model = model.to(device).eval().requires_grad_(False)
        self.processor, self.device, self.batch_size = processor, device, batch_size
        self.share, self.frames, self.system, self.chat = share, frames, system, chat or {}
        tokenizer = processor.tokenizer
        named = (getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio"))
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        self.control_tokens = sorted({*tokenizer.all_special_tokens, *added, *filter(None, named)})

    def objection(self, text: str) -> str:
        """ "ok", or that the text holds a token which the model would not read as text."""
        found = [token for token in self.control_tokens if token in text]
        return f"the prompt holds '{found[0]}', a control token of the judge" if found else OK

    def choices(self, questions: Sequence[Question], words: Words, *, exact: bool = False) -> Choices:
        """How probable each answer is; with gradient where a picture has one.

            log_prob_k = logsumexp over the tokens of answer k of log_softmax(logits), at the first word of the answer

        Raises:
            ConfigError: an answer is no single token of this model, or two answers share one.
        """
        tokens = [self.token_ids(group, exact=exact) for group in words]
        flat = [token for group in tokens for token in group]
        if len(set(flat)) < len(flat):
            raise ConfigError(f"answers {[list(group) for group in words]}: two of them share a token")
        rows: list[Tensor | None] = [None] * len(questions)
        for indices, logits in self._batches(questions):
            log_prob = logits.float().log_softmax(-1)
            grouped = torch.stack([log_prob[:, group].logsumexp(-1) for group in tokens], -1)
            for i, row in zip(indices, grouped, strict=True):
                rows[i] = row
        found = [row for row in rows if row is not None]
        log_prob = torch.stack(found) if found else torch.zeros(0, len(words))
        return Choices(log_prob, [OK] * len(questions))

    def token_ids(self, group: Sequence[str], *, exact: bool) -> list[int]:
        """The tokens that mean one answer, each once.

        Raises:
            ConfigError: none of the words is a single token.
        """
        found: list[int] = []
        for word in group:
            forms = [word] if exact else [word, word.lower(), word.capitalize(), word.upper()]
            for form in forms if exact else [*forms, *(" " + form for form in forms)]:
                ids = self.processor.tokenizer.encode(form, add_special_tokens=False)
                if len(ids) == 1 and ids[0] not in found and ids[0] != self.processor.tokenizer.unk_token_id:
                    found.append(ids[0])
        if not found:
            raise ConfigError(
                f"answer {list(group)}: no single token of this model; ask for a shorter answer, or let it write"
            )
        return found

    @torch.no_grad()
    def write(self, questions: Sequence[Question], *, max_new_tokens: int) -> list[Written]:
        """One greedy answer to each question, padded on the left so that all begin together."""
        answers: list[Written] = []
        tokenizer = self.processor.tokenizer
        for start in range(0, len(questions), self.batch_size):
            batch = questions[start : start + self.batch_size]
            inputs = self._encode(batch, padding_side="left")
            out = self.model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id
                if tokenizer.pad_token_id is not None
                else tokenizer.eos_token_id,
            )
            said = out[:, inputs["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(said, skip_special_tokens=True)
            answers += [Written(text.strip()) for text in texts]
        return answers

    def render(self, question: Question) -> str:
        """The conversation as the model is given it, media still as placeholders."""
        parts = [part for m in question.media for part in parts_of(m, self.processor, frames=self.frames)]
        return render(parts, question.text, self.processor, system=self.system, **self.chat)

    def _encode(
        self, questions: Sequence[Question], *, padding_side: str, texts: Sequence[str] | None = None
    ) -> dict[str, Any]:
        texts = [self.render(question) for question in questions] if texts is None else texts
        inputs = encode(questions, self.processor, texts, frames=self.frames, padding_side=padding_side)
        return {name: self._place(value) for name, value in inputs.items()}

    def _place(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(self.device)
        return value.to(self.model.dtype) if value.is_floating_point() else value

    def _batches(self, questions: Sequence[Question]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices [n] of questions and their logits [n, V] at the first position of the answer."""
        alone: list[int] = []
        for indices in together(questions) if self.share else ([i] for i in range(len(questions))):
            shared = self._shared([questions[i] for i in indices]) if len(indices) > 1 else None
            if shared is None:
                alone += indices
            else:
                yield indices, shared
        for start in range(0, len(alone), self.batch_size):
            some = alone[start : start + self.batch_size]
            yield some, self._last_logits([questions[i] for i in some])

    def _last_logits(self, questions: Sequence[Question]) -> Tensor:
        """[n, V]. Padded on the right, where no token of a causal model sees it and positions need no care."""
        inputs = self._encode(questions, padding_side="right")
        last = inputs["attention_mask"].sum(1) - 1
        kept = int(inputs["input_ids"].shape[1] - last.min())
        logits = self.model(**inputs, use_cache=False, logits_to_keep=kept).logits
        rows = torch.arange(len(last), device=logits.device)
        found: Tensor = logits[rows, last - inputs["input_ids"].shape[1] + logits.shape[1]]
        return found

    def _shared(self, questions: Sequence[Question]) -> Tensor | None:
        """[n, V] of questions about the same media, or None where their beginnings cannot be shared."""
        texts = [self.render(question) for question in questions]
        start = common_start(texts, questions[0], self.processor, frames=self.frames)
        if start is None:
            return None
        whole = self._encode(questions[:1], texts=texts[:1], padding_side="right")["input_ids"][0]
        prefix = self._encode(questions[:1], texts=[texts[0][:start]], padding_side="right")
        return continue_from(
            self.model, prefix, [text[start:] for text in texts], self.processor.tokenizer, expected=whole
        )


def load_judge(
    card: RewardCard,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    model: Any = None,
    processor: Any = None,
    **options: Any,
) -> LocalJudge:
    """A card's model and processor, by transformers.

    Args:
        card: its ``weights`` are a hub id, a folder that ``save_pretrained`` wrote, or ``embedded/<name>``.
        device: where the model runs.
        dtype: of the weights in memory, such as "bfloat16"; "auto" for the file's own.
        model: a model in the place of the card's, with ``processor``.
        processor: its processor.
        options: of :class:`LocalJudge`.

    Raises:
        ConfigError: the weights are not there, or no model that reads media and writes text.
    """
    if model is None:
        model, processor = _load(card, dtype)
    return LocalJudge(model, processor, device=device, **options)


def _load(card: RewardCard, dtype: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor
    from transformers.utils import logging

    folder = find(card)
    name = str(card.weights if folder is None else folder)
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    code = remote_code()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=code)
        pictures = type(config) in AutoModelForImageTextToText._model_mapping
        family = AutoModelForImageTextToText if pictures else AutoModelForMultimodalLM
        model = family.from_pretrained(name, dtype=_dtype(dtype), trust_remote_code=code)
        return model, AutoProcessor.from_pretrained(name, trust_remote_code=code)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        if folder is None and local_path(str(card.weights)) is None:
            raise ConfigError(
                f"reward '{card.name}': its weights are not on this machine and could not be fetched ({reason}); "
                f"{advice(card)}"
            ) from error
        raise ConfigError(
            f"reward '{card.name}': transformers could not load '{card.weights}' ({reason}); it takes a folder with "
            "config.json, weights and a processor, or a hub id and a network"
        ) from error
    finally:
        if bar:
            logging.enable_progress_bar()


def _dtype(name: str) -> Any:
    found = name if name == "auto" else getattr(torch, name, None)
    if not isinstance(found, str | torch.dtype):
        raise ValueError(f"dtype = '{name}', expected 'auto' or a kind of number such as 'bfloat16'")
    return found
