"""The names of SynthSleepNet's steps, temporal context modules, device strategies and tables, as users type them."""

STEPS = ("unimodal", "multimodal", "linear_probing", "fine_tuning")
"""The steps of a fold, in their order."""

TCMS = ("mamba2", "mamba", "lstm", "mha")
"""The temporal context modules that NeuroNet's authors compared; the first is the published choice."""

STRATEGIES = ("mirrored", "multiworker")
"""How several devices may train one network: all devices of this machine, or those of several machines."""

FORMATS = ("parquet", "npz")
"""Of tables of embeddings; the first is the default."""
