"""Make ``embedded/shapes-vlm``: a small Llava that answers questions about pictures of the shapes world.

It says yes or no to a caption or an attribute, rates a caption from 1 to 5 (one more than the attributes that hold), in
a digit or in words, describes a picture before it rates it, and picks the better of two pictures. Its picture encoder
is that of ``embedded/shapes-clip``, frozen. Only the training combinations of the world are shown or named. Pictures
are clean, spoiled as a generator's are, or blends of two. A last stage shows pairs in both orders, which have to agree.

    uv run python recipes/pretrain/shapes_vlm.py        # about 30 minutes on one free core; resumes where it stopped
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from common import console, fit, generator
from safetensors.torch import load_file
from shapes_clip import spoil
from shapes_questions import (
    BLEND,
    IGNORED,
    Block,
    attribute_blocks,
    pair_blocks,
    picture_blocks,
    turn,
    vocabulary,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from mmalign.worlds import shapes

SIDE_PX, PATCH_PX = 64, 8
IMAGE_TOKENS = (SIDE_PX // PATCH_PX) ** 2 + 1
"""The class token and the patches."""
SPECIAL = ("<pad>", "<unk>", "<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
FUNCTION_WORDS = ("a", "at", "in", "on", "the")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides the result."""

    out: Path = Path("assets/shapes-vlm")
    work: Path = Path("runs/pretrain/shapes-vlm")
    clip: Path = Path("assets/shapes-clip")
    """The open_clip model whose frozen picture encoder is taken."""
    pictures_per_shape: int = 8
    word_steps: int = 800
    steps: int = 800
    first_steps: int = 200
    """Of these, the first ask of one attribute at a time, which is learned soonest."""
    full_steps: int = 70
    """Of these, the last see every patch; before, the class token and ``patches`` others, which costs a third."""
    patches: int = 4
    pictures: int = 24
    """Pictures in a batch; each has questions of its own, and they form half as many pairs."""
    learning_rate: float = 2.5e-3
    pair_pictures_per_shape: int = 24
    """Others than before, for the last stage, which is about pairs."""
    pair_steps: int = 1_500
    pair_full_steps: int = 150
    pair_learning_rate: float = 1.5e-3
    device: str = "cpu"
    threads: int = 1
    """A small model gains nothing from more, and loses much where cores are shared."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """What the frozen encoder makes of the training pictures, [N, 65, D], shape by shape and over again."""

    scenes: tuple[shapes.Shape, ...]
    features: Tensor

    def show(self, wanted: list[shapes.Shape], random: torch.Generator) -> Tensor:
        """The features [B, 65, D] of one picture of each shape."""
        index = {shape: i for i, shape in enumerate(self.scenes)}
        copies = len(self.features) // len(self.scenes)
        copy = torch.randint(copies, (len(wanted),), generator=random) * len(self.scenes)
        return self.features[torch.tensor([index[shape] for shape in wanted]) + copy]


def as_generated(clean: Tensor, random: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W] as a generator makes them: clean, spoiled, or with another one showing through."""
    share, chance = torch.rand(2, len(clean), 1, 1, 1, generator=random)
    other = clean[torch.randperm(len(clean), generator=random)]
    mixed = clean.lerp(other, torch.where(chance < 0.4, BLEND * share, torch.zeros(())))
    return torch.where(chance > 0.75, clean, spoil(mixed, random))


@torch.no_grad()
def draw_world(
    settings: Settings, model: LlavaForConditionalGeneration, *, stage: str, copies: int, seed: int
) -> World:
    """Every training shape in turn, ``copies`` times over."""
    random = generator(settings.seed, seed)
    scenes = shapes.all_shapes("train")
    kept = settings.work / f"{stage}.pt"
    if kept.exists():
        return World(tuple(scenes), torch.load(kept, weights_only=True))
    features = []
    for _ in range(copies):
        pictures = as_generated(shapes.render([(shape,) for shape in scenes], random), random)
        features.append(encode(model, pictures.to(settings.device)))
    torch.save(torch.cat(features), kept)
    return World(tuple(scenes), torch.cat(features))


def encode(model: LlavaForConditionalGeneration, pictures: Tensor) -> Tensor:
    """[B, 65, D], what Llava projects."""
    hidden: Tensor = model.model.vision_tower(pictures * 2 - 1, output_hidden_states=True).hidden_states[-1]
    return hidden


def build_processor() -> LlavaProcessor:
    """Words as tokens, pictures squashed to the model's size, and a chat template."""
    words = [*SPECIAL, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"height": SIDE_PX, "width": SIDE_PX},
            do_center_crop=False,  # it would cut away the places
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            unk_token="<unk>",
            eos_token="<|end|>",
            extra_special_tokens=list(SPECIAL[2:6]),
            padding_side="left",
            model_max_length=512,
        ),
        patch_size=PATCH_PX,
        num_additional_image_tokens=1,  # the class token
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(settings: Settings, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The untrained model."""
    tokenizer = processor.tokenizer
    torch.manual_seed(settings.seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE_PX,
            patch_size=PATCH_PX,
            hidden_act="gelu",
            projection_dim=128,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            initializer_range=0.08,  # transformers' 0.02 is for larger models
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Words begin by looking for what is like them, which is how a caption is compared with a picture.
    attention = model.model.language_model.layers[0].self_attn
    attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)
    return model.to(settings.device)


def take_encoder(folder: Path, tower: nn.Module) -> None:
    """Copy the picture encoder of an open_clip ViT into transformers' own class, and freeze it."""
    source = load_file(folder / "open_clip_model.safetensors")
    names = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "transformer.resblocks": "encoder.layers",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    weights = {}
    for name, weight in source.items():
        if not name.startswith("visual.") or name == "visual.proj":
            continue
        theirs = name.removeprefix("visual.")
        for old, new in names.items():
            theirs = theirs.replace(old, new)
        if "in_proj" in theirs:
            for letter, part in zip("qkv", weight.float().chunk(3), strict=True):
                weights[theirs.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = part
        else:
            weights[theirs] = weight.float()
    wanted = tower.state_dict()
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in wanted) else ""
    tower.load_state_dict({prefix + name: weight for name, weight in weights.items()})
    tower.eval().requires_grad_(False)


def align_words(
    settings: Settings, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, world: World
) -> None:
    """Give a picture's class token the direction of the words that describe it: seconds, where questions take hours."""
    said = [
        [word for word in shapes.caption((s,)).split() if word not in FUNCTION_WORDS] for s in world.scenes
    ]
    words = sorted({word for line in said for word in line})
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(words))
    wanted = torch.tensor([[float(word in line) for word in words] for line in said]).to(settings.device)
    affine = nn.Linear(1, 1)
    nn.init.constant_(affine.weight, 5.0)
    embedding = model.get_input_embeddings()

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 4, step)
        rows = torch.randint(len(world.features), (128,), generator=random)
        projected = model.model.multi_modal_projector(world.features[rows, 0])
        logits = affine((projected @ embedding(ids).T)[..., None])[..., 0]
        return binary_cross_entropy_with_logits(logits, wanted[rows % len(world.scenes)])

    fit(
        "words",
        nn.ModuleDict({"projector": model.model.multi_modal_projector, "words": embedding, "affine": affine}),
        loss,
        steps=settings.word_steps,
        learning_rate=4e-3,
        folder=settings.work,
        warmup=20,
        ema_decay=0.98,
    )
    model.model.multi_modal_projector.requires_grad_(True).train()
    embedding.requires_grad_(True)


def pack(
    tokenizer: PreTrainedTokenizerFast, images: int, kept: list[int], blocks: list[list[Block]]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Several conversations about the same pictures as one sequence, in which none sees another.

    Args:
        tokenizer: the model's.
        images: how many pictures each sequence begins with.
        kept: the image tokens, of those of a picture, that are there; each has its own position.
        blocks: per sequence, its questions with their answers.

    Returns:
        Token ids, positions, labels and their weights, each [N, L], and what may be attended [N, 1, L, L].
    """
    image, user, assistant, end, pad = tokenizer.convert_tokens_to_ids(
        ["<image>", "<|user|>", "<|assistant|>", "<|end|>", "<pad>"]
    )
    rows = []
    places = [1 + IMAGE_TOKENS * number + token for number in range(images) for token in kept]
    first = 1 + IMAGE_TOKENS * images
    for conversation in blocks:
        ids, positions = [user] + [image] * len(places), [0, *places]
        owner, labels, weights = [0] * len(ids), [IGNORED] * len(ids), [0.0] * len(ids)
        for number, block in enumerate(conversation, start=1):
            asked = [*tokenizer.encode(block.question, add_special_tokens=False), end, assistant]
            said = [*tokenizer.encode(block.answer, add_special_tokens=False), end]
            whole = asked + said[:-1]
            ids += whole
            labels += [IGNORED] * (len(asked) - 1) + said
            weights += [0.0] * (len(asked) - 1) + [block.weight] * (len(said) - 1) + [0.1]
            positions += range(first, first + len(whole))
            owner += [number] * len(whole)
        rows.append((ids, positions, labels, weights, owner))
    length = max(len(row[0]) for row in rows)

    def padded(column: int, fill: float) -> Tensor:
        return torch.tensor([row[column] + [fill] * (length - len(row[column])) for row in rows])

    block = padded(4, -1)
    seen = (block[:, None, :] == 0) | (block[:, None, :] == block[:, :, None])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = (seen & causal) | torch.eye(length, dtype=torch.bool)
    return padded(0, pad), padded(1, 0), padded(2, IGNORED), padded(3, 0.0), allowed[:, None]


@dataclass(frozen=True)
class Answers:
    """What the model says where an answer is wanted: logits [N, vocabulary], labels [N] and their weights [N]."""

    logits: Tensor
    labels: Tensor
    weights: Tensor

    def loss(self) -> Tensor:
        """Weighted cross-entropy."""
        each = cross_entropy(self.logits, self.labels, reduction="none")
        return (each * self.weights).sum() / self.weights.sum()

    def disagreement(self, verdicts: Tensor) -> Tensor:
        """Squared distance of the verdicts' probabilities in one order, the first half, and in the other, exchanged."""
        first, turned = (
            logits[torch.isin(labels, verdicts)][:, verdicts].softmax(-1)
            for logits, labels in zip(self.logits.chunk(2), self.labels.chunk(2), strict=True)
        )
        return (first - turned[:, [1, 0, 2]]).square().sum(-1).mean()


def answer(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    features: Tensor,
    kept: list[int],
    blocks: list[list[Block]],
) -> Answers:
    """Of questions about [B, pictures, 65, D]; each picture is projected once for all that are asked of it."""
    ids, positions, labels, weights, allowed = pack(tokenizer, features.shape[1], kept, blocks)
    features = model.model.multi_modal_projector(features[:, :, kept])
    embedded = model.get_input_embeddings()(ids)
    is_image = (ids == model.config.image_token_id)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(is_image, features)
    hidden = model.model.language_model(
        inputs_embeds=embedded, attention_mask=allowed, position_ids=positions, use_cache=False
    ).last_hidden_state
    wanted = labels != IGNORED
    return Answers(model.lm_head(hidden[wanted]), labels[wanted], weights[wanted])


def trained(model: LlavaForConditionalGeneration) -> nn.ModuleDict:
    """All but the picture encoder, ready for a stage of training."""
    parts = {
        "projector": model.model.multi_modal_projector,
        "language": model.model.language_model,
        "head": model.lm_head,
    }
    return nn.ModuleDict(parts).requires_grad_(True).train()


def some_tokens(patches: int, random: torch.Generator) -> list[int]:
    """The class token and as many patches, drawn at random."""
    return [0, *sorted((1 + torch.randperm(IMAGE_TOKENS - 1, generator=random)[:patches]).tolist())]


def train(
    settings: Settings, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, world: World
) -> None:
    """Cross-entropy of the answers about pictures, and about pairs in one order each."""

    def answers_loss(features: Tensor, kept: list[int], blocks: list[list[Block]]) -> Tensor:
        return answer(model, tokenizer, features, kept, blocks).loss()

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 3, step)
        half = settings.pictures // 2
        rows = torch.randint(len(world.scenes), (half,), generator=random)
        firsts = [world.scenes[i] for i in rows]
        pairs = [pair_blocks(shape, random) for shape in firsts]
        shown = firsts + [pair.other for pair in pairs]
        features = world.show(shown, random)[:, None]
        patches = settings.patches if step < settings.steps - settings.full_steps else IMAGE_TOKENS - 1
        kept = some_tokens(patches, random)
        if step < settings.first_steps:
            return answers_loss(features, kept, [attribute_blocks(shape, random) for shape in shown])
        single = answers_loss(features, kept, [picture_blocks(shape, random) for shape in shown])
        order = [[i + half, i] if pair.turned else [i, i + half] for i, pair in enumerate(pairs)]
        both = answers_loss(features[torch.tensor(order), 0], kept, [pair.blocks for pair in pairs])
        return single + 0.5 * both

    fit(
        "vlm",
        trained(model),
        loss,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        folder=settings.work,
        warmup=50,
        ema_decay=0.99,
    )


def train_pairs(
    settings: Settings, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, world: World
) -> None:
    """Pairs in both orders, which have to agree; some questions about one picture, so that none is forgotten."""
    verdicts = torch.tensor(tokenizer.convert_tokens_to_ids(["1", "2", "0"]))

    def loss(step: int) -> Tensor:
        random = generator(settings.seed, 6, step)
        count = settings.pictures
        rows = torch.randint(len(world.scenes), (count,), generator=random)
        firsts = [world.scenes[i] for i in rows]
        pairs = [pair_blocks(shape, random, rivals=True) for shape in firsts]
        shown = [
            (pair.other, shape) if pair.turned else (shape, pair.other)
            for shape, pair in zip(firsts, pairs, strict=True)
        ]
        left, right = (world.show(list(side), random) for side in zip(*shown, strict=True))
        patches = (
            settings.patches if step < settings.pair_steps - settings.pair_full_steps else IMAGE_TOKENS - 1
        )
        kept = some_tokens(patches, random)
        both = torch.stack([torch.cat([left, right]), torch.cat([right, left])], dim=1)
        asked = [pair.blocks for pair in pairs]
        found = answer(model, tokenizer, both, kept, asked + [turn(blocks) for blocks in asked])
        half = count // 2
        single = answer(
            model,
            tokenizer,
            left[:half, None],
            kept,
            [picture_blocks(one, random) for one, _ in shown[:half]],
        )
        return single.loss() + found.loss() + found.disagreement(verdicts)

    fit(
        "pairs",
        trained(model),
        loss,
        steps=settings.pair_steps,
        learning_rate=settings.pair_learning_rate,
        folder=settings.work,
        warmup=50,
        ema_decay=0.99,
    )


def main(settings: Settings) -> None:
    """Run every stage that has no finished checkpoint, save the model in fp16."""
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    settings.work.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    model = build_model(settings, processor)
    take_encoder(settings.clip, model.model.vision_tower)
    world = draw_world(settings, model, stage="features", copies=settings.pictures_per_shape, seed=1)
    console.print(f"{len(world.features)} pictures drawn in {time.monotonic() - started:.0f} s")
    align_words(settings, model, processor.tokenizer, world)
    train(settings, model, processor.tokenizer, world)
    world = draw_world(
        settings, model, stage="pair_features", copies=settings.pair_pictures_per_shape, seed=5
    )
    train_pairs(settings, model, processor.tokenizer, world)
    processor.save_pretrained(settings.out)
    model.half().save_pretrained(settings.out)
    console.print(f"{settings.out} written after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Settings))
