"""Every value a user may want to change, with the published defaults.

Edit this file, or change single values for one run: ``trainer.py --set learning_rate=3e-4 --set passes=20``.
Each value's type gives its range. A value outside its range, or a name in a preset that its class does not have, is
refused before anything runs.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from data.terms import EPOCH_SAMPLES, EPOCH_SECONDS, WAKE_MINUTES

CHECKED = ConfigDict(strict=True, extra="forbid", validate_default=True)
"""A value must have its field's type, only fields may be named, and the defaults below are checked too."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Passes = Annotated[int, Field(ge=1, le=100_000)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Seed = Annotated[int, Field(ge=0, le=2**31)]
Samples = Annotated[int, Field(ge=1, le=EPOCH_SAMPLES)]
Filters = Annotated[int, Field(ge=1, le=4096)]
Features = Annotated[int, Field(ge=4, le=8192)]
Heads = Annotated[int, Field(ge=1, le=64)]
Blocks = Annotated[int, Field(ge=1, le=64)]
Projection = Annotated[int, Field(ge=1, le=65_535)]
LearningRate = Annotated[float, Field(ge=1e-12, le=10)]
Decay = Annotated[float, Field(ge=0, le=0.999999)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]
Minutes = Annotated[float, Field(ge=0, le=1440)]
MaskRatio = Annotated[float, Field(ge=0.01, le=0.99)]
ValidationFraction = Annotated[float, Field(ge=0.001, le=0.9)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
GradientNorm = Annotated[float, Field(ge=1e-6, le=1e9)]
LossWeight = Annotated[float, Field(ge=0, le=1e6)]
ClassWeight = Annotated[float, Field(gt=0, lt=1e6)]
Modality = Literal["eeg", "eog", "emg", "ecg", "airflow"]
Precision = Literal["float32", "mixed_bfloat16"]
Balance = Literal["none", "class_weights", "sampler"]
Schedule = Literal["constant", "cosine", "cosine_per_pass"]
"""How a learning rate changes: not at all; or falling to 0 along a cosine, a step per update or a step per pass."""


@dataclass(frozen=True, config=CHECKED)
class PreparationConfig:
    """How recordings become night files; see ``data.prepare``."""

    wake_minutes: Minutes = WAKE_MINUTES
    """Wake to keep before the first and after the last epoch of sleep, unless the database's nights are kept whole."""
    event_overlap_seconds: Annotated[float, Field(ge=0, le=EPOCH_SECONDS)] = 1.0
    """How many seconds of an epoch a breathing event must cover for the epoch to be labelled with it."""


@dataclass(frozen=True, config=CHECKED)
class SyntheticConfig:
    """Synthetic nights, written into ``data/synthetic`` on first use."""

    hours: Annotated[float, Field(ge=0.01, le=48)] = 8.0
    """Length of a night; each subject's night differs from it by up to 6 %."""
    synthetic_seed: Seed = 2024


@dataclass(frozen=True, config=CHECKED)
class RecSleepNetConfig:
    """RecSleepNet's architecture."""

    filters: Filters = 128
    first_kernel: Samples = 50
    """Samples: half a second at 100 Hz."""
    first_stride: Samples = 6
    block_kernel: Samples = 8
    first_pool: Samples = 8
    second_pool: Samples = 4
    lstm_units: Filters = 128
    dropout: Dropout = 0.5
    global_pooling: Literal["both", "average", "maximum"] = "both"
    """What describes an epoch: the average and the maximum over its time steps, or one of them."""


@dataclass(frozen=True, config=CHECKED)
class TrainingConfig:
    """RecSleepNet's training protocol."""

    seed: Seed = 42
    """Fold k uses seed + k for its split, its initial weights, its dropout and its order of nights."""
    validation_fraction: ValidationFraction = 0.10
    batch_nights: Annotated[int, Field(ge=1, le=1024)] = 15
    """Nights side by side in a batch."""
    window_epochs: Annotated[int, Field(ge=1, le=4096)] = 20
    """30-s epochs per training step and night; the LSTM's state is carried from window to window."""
    reconstruction_passes: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Passes over the training nights on the reconstruction loss alone."""
    passes: Passes = 100
    """Passes that follow, on the joint loss of stages and reconstruction."""
    learning_rate: LearningRate = 1e-4
    adam_beta_1: Decay = 0.9
    adam_beta_2: Decay = 0.999
    adam_epsilon: Annotated[float, Field(ge=1e-16, le=10)] = 1e-8
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Training ends after so many joint passes in a row without a better one than the best. 0: it never ends early."""
    clip_norm: GradientNorm = 5.0
    """Bound on the gradient's global norm in the joint phase; the first phase is not clipped."""
    class_weights: tuple[ClassWeight, ClassWeight, ClassWeight, ClassWeight, ClassWeight] = (1.0, 1.5, 1.0, 1.0, 1.0)
    l2: Annotated[float, Field(ge=0, le=1e3)] = 1e-3
    """Weight of half the squared norm of the kernels of the first convolution and the block's forward convolutions."""
    reconstruction_weight: LossWeight = 1e-5
    transductive: bool = False
    """Whether the first phase also trains on the signals, without labels, of validation and test subjects, as the
    reference code does. The results are then those of subjects whose signals were seen in training."""
    precision: Precision = "float32"
    """``mixed_bfloat16`` computes the convolutions in bfloat16 where the processor can."""


@dataclass(frozen=True, config=CHECKED)
class SynthSleepNetConfig:
    """SynthSleepNet's architecture."""

    frame_seconds: Annotated[float, Field(ge=3, le=5)] = 4.0
    frame_step_seconds: Annotated[float, Field(ge=0.01, le=EPOCH_SECONDS)] = 1.0
    unimodal_features: Features = 768
    """Size of NeuroNet's tokens."""
    unimodal_heads: Heads = 8
    unimodal_blocks: Blocks = 4
    unimodal_decoder_features: Features = 256
    unimodal_decoder_heads: Heads = 8
    unimodal_decoder_blocks: Blocks = 3
    unimodal_projection: tuple[Projection, Projection] = (1024, 512)
    unimodal_temperature: Temperature = 0.05
    fusion_features: Features = 512
    fusion_heads: Heads = 8
    fusion_blocks: Blocks = 4
    fusion_decoder_features: Features = 256
    fusion_decoder_heads: Heads = 8
    fusion_decoder_blocks: Blocks = 3
    fusion_projection: tuple[Projection, Projection] = (512, 256)
    fusion_temperature: Temperature = 0.1
    fusion_adaptation_rank: Annotated[int, Field(ge=0, le=4096)] = 4
    """Rank r of the LoRA by which the fusion adapts its frozen encoders; 0 for no LoRA."""
    head_dropout: Dropout = 0.5
    """Dropout before the classifier, in linear probing and in fine-tuning."""
    adaptation_rank: Annotated[int, Field(ge=0, le=4096)] = 4
    """Rank r of the LoRA that fine-tuning adds."""
    adaptation_alpha: Annotated[float, Field(ge=1e-6, le=1e6)] = 8.0


@dataclass(frozen=True, config=CHECKED)
class NeuroNetConfig(SynthSleepNetConfig):
    """NeuroNet's architecture where it is trained alone, on one EEG channel, so that nothing is fused."""

    frame_seconds: Annotated[float, Field(ge=3, le=5)] = 3.0
    frame_step_seconds: Annotated[float, Field(ge=0.01, le=EPOCH_SECONDS)] = 0.375
    unimodal_features: Features = 512
    unimodal_decoder_features: Features = 192
    unimodal_decoder_blocks: Blocks = 1


@dataclass(frozen=True, config=CHECKED)
class SynthSleepNetTraining:
    """SynthSleepNet's training protocol."""

    seed: Seed = 42
    """Fold k uses seed + k."""
    validation_fraction: ValidationFraction = 0.10
    labelled_subjects: Count = 50
    """Number of training subjects whose scoring may be used; the others are used for pretraining only."""
    labelled_last: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """If above 0, the labelled subjects are not drawn at random: this share of the training subjects is labelled, the
    last ones in the database's order."""
    labelled_wake_minutes: Minutes = WAKE_MINUTES
    """Minutes of wake before and after sleep whose labels are learnt and tested, in nights that were prepared whole,
    as those of the SHHS are; pretraining uses the whole night."""
    event_balance: Balance = "none"
    """Whether all epochs with a breathing event, which are rare, count together as much as all others: by the weight of
    their loss, or by how often they are drawn. Fine-tuning draws stretches of epochs: the more of them hold an event,
    the more often. Weights of the epochs' losses then correct for the epochs that were drawn along with them."""
    pretraining_on_labelled: bool = True
    """Whether pretraining also uses the signals of the labelled subjects."""
    unimodal_passes: Passes = 20
    unimodal_batch: Batch = 256
    """30-s epochs in a batch of NeuroNet."""
    unimodal_mask_ratio: MaskRatio = 0.8
    multimodal_passes: Passes = 100
    multimodal_batch: Batch = 256
    multimodal_mask_ratio: MaskRatio = 0.4
    accumulation: Batch = 1
    """Batches whose gradients are added up for one update in pretraining; contrast compares within each batch only."""
    pretraining_rate: LearningRate = 1e-4
    """Learning rate if an update sees 256 epochs; it is scaled in proportion to the epochs of an update."""
    pretraining_schedule: Schedule = "cosine"
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    clip_norm: GradientNorm = 2.0
    """Bound on the gradient's global norm."""
    unimodal_unclipped: tuple[Modality, ...] = ()
    """Modalities whose own pretraining is not clipped."""
    multimodal_streams: Literal["modality", "channel"] = "modality"
    """Whether the fusion takes the first channel of each modality, or every channel as a stream of its own."""
    multimodal_cls_normalised: bool = False
    """Whether the statistics of the fusion's batch normalisation include the cls token, which is dropped after it."""
    reconstruction_weight: LossWeight = 1.0
    """Weight of masked prediction in the loss of pretraining; 0 leaves it out."""
    contrastive_weight: LossWeight = 1.0
    """Weight of contrast in the loss of pretraining; 0 leaves it out."""
    round_nights: Count = 100
    """Number of nights after which the state is saved again, from which a killed run can continue."""
    unimodal_ecg_chosen_by: Literal["sleep_stage", "apnea"] = "sleep_stage"
    """The task by which the best network of the ECG is chosen; for the other modalities it is the sleep stage."""
    knn_nights: Count = 20
    """Nights of labelled subjects, and as many of validation and of test subjects, for judging a pretrained network."""
    knn_components: Annotated[int, Field(ge=1, le=8192)] = 50
    knn_neighbours: Annotated[int, Field(ge=1, le=1000)] = 5
    probing_passes: Passes = 100
    """Passes over the labelled epochs, whose embeddings are computed only once."""
    probing_with_replacement: bool = False
    """Whether the labelled epochs to learn from are drawn with replacement, so that some count twice."""
    probing_batch: Batch = 512
    probing_rate: LearningRate = 1e-4
    """Learning rate if an update sees 256 epochs; it is scaled in proportion to the epochs of an update."""
    probing_schedule: Schedule = "constant"
    fine_tuning_passes: Passes = 30
    fine_tuning_batch: Batch = 32
    """Stretches of consecutive epochs in a batch."""
    fine_tuning_accumulation: Batch = 4
    """Batches whose gradients are added up for one update in fine-tuning."""
    fine_tuning_rate: LearningRate = 5e-4
    """Learning rate if an update sees 256 stretches; it is scaled in proportion to the stretches of an update."""
    fine_tuning_schedule: Schedule = "cosine"
    stretch_epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Epochs in a stretch, which the temporal context module sees at once."""
    stretch_step: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Epochs from the start of one training stretch to the next; outside training, stretches do not overlap."""
    validation_nights: Count = 50
    """At most so many nights of validation subjects judge each pass of fine-tuning."""
    frozen_gib: Annotated[float, Field(ge=0, le=1_000_000)] = 20.0
    """Disk space in GiB that fine-tuning may use while it runs, to keep the outputs of its frozen convolutions for the
    labelled and validation nights; if that is not enough, they are computed again in every pass. With the published
    sizes, they take 0.7 MB per epoch and stream."""
    precision: Precision = "float32"
    """``mixed_bfloat16`` computes matrix products and convolutions in bfloat16 where the processor can."""


ADAPTATION: dict[str, Any] = {
    "reconstruction_passes": 0,
    "passes": 30,
    "learning_rate": 3e-5,
    "patience": 6,
}
"""What changes in RecSleepNet's training if it begins with trained weights (``--init``): adaptation to few nights."""

PRESETS = {
    "paper": (SynthSleepNetConfig(), SynthSleepNetTraining()),
    "small": (
        SynthSleepNetConfig(
            frame_step_seconds=2.0,
            unimodal_features=256,
            unimodal_blocks=2,
            unimodal_decoder_features=128,
            unimodal_decoder_blocks=1,
            unimodal_projection=(256, 128),
            fusion_features=128,
            fusion_blocks=2,
            fusion_decoder_features=128,
            fusion_decoder_blocks=1,
            fusion_projection=(128, 64),
        ),
        SynthSleepNetTraining(
            unimodal_passes=5,
            unimodal_batch=64,
            multimodal_passes=5,
            multimodal_batch=64,
            pretraining_rate=2e-3,
            probing_rate=1e-3,
            fine_tuning_passes=10,
            fine_tuning_batch=8,
            fine_tuning_accumulation=1,
            fine_tuning_rate=2e-2,
        ),
    ),
    "tiny": (
        SynthSleepNetConfig(
            frame_seconds=3.0,
            frame_step_seconds=9.0,
            unimodal_features=32,
            unimodal_heads=4,
            unimodal_blocks=1,
            unimodal_decoder_features=32,
            unimodal_decoder_heads=4,
            unimodal_decoder_blocks=1,
            unimodal_projection=(32, 16),
            fusion_features=32,
            fusion_heads=4,
            fusion_blocks=1,
            fusion_decoder_features=32,
            fusion_decoder_heads=4,
            fusion_decoder_blocks=1,
            fusion_projection=(32, 16),
        ),
        SynthSleepNetTraining(
            unimodal_passes=2,
            unimodal_batch=16,
            # Of the few frames, some must stay unmasked so that epochs can be told apart.
            unimodal_mask_ratio=0.5,
            multimodal_passes=2,
            multimodal_batch=16,
            pretraining_rate=1e-2,
            probing_batch=16,
            probing_rate=2e-2,
            fine_tuning_passes=2,
            fine_tuning_batch=4,
            fine_tuning_accumulation=1,
            fine_tuning_rate=5e-2,
        ),
    ),
}
"""SynthSleepNet's architecture and training by preset: as published; small enough for two cores; for tests."""

NEURONET: dict[str, Any] = {
    "labelled_last": 0.15,
    "pretraining_on_labelled": False,
    "unimodal_passes": 30,
    "pretraining_rate": 1e-5,
    "pretraining_schedule": "cosine_per_pass",
    # No gradient is that large, so nothing is clipped.
    "clip_norm": 1e9,
    "unimodal_unclipped": ("eeg",),
    "probing_passes": 300,
    # An update sees 512 epochs, so its rate is twice this one.
    "probing_rate": 2.5e-5,
    "probing_schedule": "cosine_per_pass",
    "fine_tuning_passes": 150,
    "fine_tuning_batch": 64,
    "fine_tuning_accumulation": 1,
    # An update sees 64 stretches, so its rate is a quarter of this one.
    "fine_tuning_rate": 2e-3,
    "fine_tuning_schedule": "cosine_per_pass",
}
"""NeuroNet's own protocol, for its training alone; docs/protocols.md compares it with the published code."""

NEURONET_PRESETS = {
    "mini": (NeuroNetConfig(), SynthSleepNetTraining(**NEURONET)),
    "base": (
        NeuroNetConfig(unimodal_features=768, unimodal_decoder_features=256, unimodal_decoder_blocks=3),
        SynthSleepNetTraining(**NEURONET),
    ),
    "tiny": (
        NeuroNetConfig(
            frame_step_seconds=9.0,
            unimodal_features=32,
            unimodal_heads=4,
            unimodal_blocks=1,
            unimodal_decoder_features=32,
            unimodal_decoder_heads=4,
            unimodal_projection=(32, 16),
        ),
        SynthSleepNetTraining(
            **NEURONET
            | {
                "unimodal_passes": 2,
                "unimodal_batch": 16,
                # Of the few frames, some must stay unmasked so that epochs can be told apart.
                "unimodal_mask_ratio": 0.5,
                "pretraining_rate": 1e-2,
                "probing_passes": 8,
                "probing_batch": 16,
                "probing_rate": 2e-2,
                "fine_tuning_passes": 2,
                "fine_tuning_batch": 4,
                "fine_tuning_rate": 5e-2,
            }
        ),
    ),
}
"""NeuroNet's architecture and training by preset: the two published sizes, and one for tests."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "corrected": {},
    "published": {
        "labelled_wake_minutes": 1440,
        "event_balance": "sampler",
        "pretraining_on_labelled": False,
        "pretraining_schedule": "cosine_per_pass",
        "unimodal_unclipped": ("eeg",),
        "unimodal_ecg_chosen_by": "apnea",
        "multimodal_streams": "channel",
        "multimodal_cls_normalised": True,
        "probing_with_replacement": True,
        "fine_tuning_schedule": "constant",
    },
}
"""What a protocol changes in SynthSleepNet's training; docs/protocols.md says why."""
