"""Small random pipelines of real classes that make sound."""

from typing import Any

import torch
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    AutoencoderOobleck,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

from tests.generators.small_pipelines import ddim, t5_encoder, t5_tokenizer


def roberta_tokenizer() -> RobertaTokenizer:
    """Every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet]
    return RobertaTokenizer(vocab={s: i for i, s in enumerate(symbols)}, merges=[], model_max_length=77)


def stable_audio() -> StableAudioPipeline:
    """Two channels of waveform; its scheduler preconditions as EDM does and takes the noise's logarithm for time."""
    torch.manual_seed(0)
    return StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[1, 2],
            decoder_channels=3,
            decoder_input_channels=4,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=4,
        ).eval(),
        text_encoder=t5_encoder(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=32, conditioning_dim=32, min_value=0, max_value=32
        ).eval(),
        tokenizer=t5_tokenizer(),
        transformer=StableAudioDiTModel(
            sample_size=16,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_key_value_attention_heads=2,
            out_channels=4,
            cross_attention_dim=32,
            time_proj_dim=8,
            global_states_input_dim=64,
            cross_attention_input_dim=32,
            num_attention_heads=4,
        ).eval(),
        scheduler=EDMDPMSolverMultistepScheduler(
            sigma_min=0.3,
            sigma_max=500.0,
            sigma_data=1.0,
            sigma_schedule="exponential",
            prediction_type="v_prediction",
        ),
    )


def audioldm2() -> AudioLDM2Pipeline:
    """Spectrograms of 8 bands, and a vocoder of 4 samples a frame."""
    torch.manual_seed(0)
    tokenizer = roberta_tokenizer()
    gpt = GPT2Config(
        n_embd=16, n_head=1, n_layer=1, n_positions=99, vocab_size=100, bos_token_id=0, eos_token_id=0
    )
    gpt.max_new_tokens = 8  # the pipeline's default length of what it adds to a prompt
    clap = ClapConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 8,
            "intermediate_size": 37,
            "num_attention_heads": 1,
            "num_hidden_layers": 1,
            "projection_dim": 8,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        audio_config={
            "spec_size": 8,
            "window_size": 4,
            "num_mel_bins": 8,
            "intermediate_size": 37,
            "depths": [1, 1],
            "num_attention_heads": [1, 1],
            "num_hidden_layers": 1,
            "hidden_size": 16,
            "projection_dim": 8,
            "patch_size": 2,
            "patch_stride": 2,
            "patch_embed_input_channels": 4,
            "patch_embeds_hidden_size": 8,
        },
        projection_dim=8,
    )
    return AudioLDM2Pipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 16),
            in_channels=1,
            out_channels=1,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            scaling_factor=0.5,
        ).eval(),
        text_encoder=ClapModel(clap).eval(),
        text_encoder_2=t5_encoder(),
        projection_model=AudioLDM2ProjectionModel(
            text_encoder_dim=8, text_encoder_1_dim=32, langauge_model_dim=16
        ).eval(),
        language_model=GPT2LMHeadModel(gpt).eval(),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
        feature_extractor=ClapFeatureExtractor(
            feature_size=8, sampling_rate=16000, hop_length=160, fft_window_size=64
        ),
        unet=AudioLDM2UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=((None, 16, 32),) * 2,
            attention_head_dim=8,
        ).eval(),
        scheduler=ddim(),
        vocoder=SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=8,
                sampling_rate=16000,
                upsample_initial_channel=16,
                upsample_rates=[2, 2],
                upsample_kernel_sizes=[4, 4],
                resblock_kernel_sizes=[3, 7],
                resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
                normalize_before=False,
            )
        ).eval(),
    )


SOUND_PIPELINES: dict[str, Any] = {
    "audioldm2": (audioldm2, {"audio_length_in_s": 250 / 16000}),
    "stable-audio": (stable_audio, {"audio_end_in_s": 7.0}),
}
"""A builder, and the options of a run, by name."""
