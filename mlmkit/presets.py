"""Runs that are known to work, from seconds on a laptop to BERT-base.

>>> config = PRESETS["laptop"].override(["train.lr=1e-3", "masking.unit=word"])
>>> config.train.lr, config.masking.unit
(0.001, 'word')
"""

from __future__ import annotations

from dataclasses import replace

from mlmkit.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from mlmkit.masking import MaskingPolicy

_SMALL = ModelConfig(
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=512,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.05,  # 0.02 is for H = 768; a narrow network that starts so small stays on the plateau for long
)

PRESETS: dict[str, RunConfig] = {
    "smoke": RunConfig(
        data=DataConfig(vocab_size=1024, max_length=64),
        model=replace(_SMALL, hidden_size=64, intermediate_size=256),
        train=TrainConfig(max_steps=40, batch_size=32, lr=2e-3, warmup_steps=10, eval_every=20, eval_batches=8),
    ),
    "laptop": RunConfig(
        data=DataConfig(vocab_size=4096, max_length=64),
        model=_SMALL,
        train=TrainConfig(max_steps=7000, batch_size=64, lr=2e-3, warmup_steps=400, eval_every=1000),
    ),
    "exact": RunConfig(
        data=DataConfig(corpus="exact:market:360000", max_length=31, short_seq_prob=0.0, held_out=0.01),
        masking=MaskingPolicy(count="binomial"),
        model=replace(
            _SMALL,
            hidden_size=96,
            num_hidden_layers=3,
            intermediate_size=24,
            max_position_embeddings=32,
            initializer_range=0.06,
        ),
        train=TrainConfig(
            max_steps=2700,
            batch_size=256,
            lr=5e-3,
            warmup_steps=200,
            nsp_weight=0.2,
            eval_every=1350,
            eval_batches=16,
        ),
    ),
    "gpu": RunConfig(
        data=DataConfig(vocab_size=8192, max_length=128),
        model=ModelConfig(
            hidden_size=512,
            num_hidden_layers=8,
            num_attention_heads=8,
            intermediate_size=2048,
            max_position_embeddings=128,
        ),
        train=TrainConfig(max_steps=10_000, batch_size=256, lr=1e-3, warmup_steps=1000, eval_every=500, patience=5),
    ),
    "base": RunConfig(
        data=DataConfig(vocab_size=30_522, max_length=512),
        model=ModelConfig(),
        train=TrainConfig(
            max_steps=1_000_000,
            batch_size=256,
            lr=1e-4,
            warmup_steps=10_000,
            beta2=0.999,
            eval_every=10_000,
            checkpoint_every=2_000,
        ),
    ),
}
"""`smoke`: seconds, to see that everything runs. `laptop`: two cores, minutes. `exact`: the same on the exact language,
whose best possible loss is known. `gpu`: one GPU, an hour or less.
`base`: the size and schedule of BERT-base (Devlin et al. 2019, appendix A.2)."""
