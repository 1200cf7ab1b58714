"""SynthSleepNet's names for steps, temporal context modules, device strategies and tables, as users type them."""

STEPS = ("unimodal", "multimodal", "linear_probing", "fine_tuning")
"""The steps of a fold, in their order."""
NEURONET_STEPS = ("unimodal", "linear_probing", "fine_tuning")
"""The steps of NeuroNet alone."""

TCMS = {
    "mamba2": ("mamba2",),
    "mamba": ("mamba",),
    "lstm": ("lstm", "lstm"),
    "mha": ("encoder", "encoder"),
    "lstm_mha": ("lstm", "encoder", "encoder"),
    "none": (),
}
"""The layers of each temporal context module, in their order: first SynthSleepNet's own modules, then those that
NeuroNet's authors compared, then no module at all."""
DEFAULT_TCM, NEURONET_TCM = "mamba2", "mamba"

STRATEGIES = ("mirrored", "multiworker")
"""How several devices may train one network: all devices of this machine, or those of several machines."""

FORMATS = ("parquet", "npz")
"""The forms of tables of embeddings; the first is the default."""
