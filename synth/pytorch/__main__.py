"""Convert a published PyTorch checkpoint into a model folder: ``python -m synth.pytorch FILE FOLDER``."""

import argparse
import sys
from pathlib import Path

import command_line
from data.terms import InputError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m synth.pytorch",
        description="Read a NeuroNet, SynthSleepNet or fine-tuned model that the published PyTorch code saved, and "
        "write it as a model folder with config.json, model.weights.h5 and metadata.json. This needs PyTorch.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the checkpoint, such as best_model.pth")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write; it must not hold a model")
    heads = "number of attention heads, which the checkpoint does not say (default 8, as published)"
    parser.add_argument("--heads", type=int, default=8, metavar="N", help=heads)
    step = (
        "seconds from one frame to the next, which the checkpoint does not say (default: the roundest number that "
        "gives its number of frames)"
    )
    parser.add_argument("--step", type=float, metavar="SECONDS", help=step)
    return parser.parse_args(arguments)


def convert(arguments: argparse.Namespace) -> None:
    for option, value in (("--heads", arguments.heads), ("--step", arguments.step)):
        if value is not None and not 0 < value <= 64:
            raise InputError(f"{option} {value}: give a number above 0 and at most 64.")
    from data.writing import require_writable
    from runs.networks import save_model
    from runs.saved import METADATA, sha256
    from synth.pytorch.architecture import model_like
    from synth.pytorch.state_dict import load_state_dict, read_state_dict

    if (arguments.folder / METADATA).exists():
        raise InputError(f"{arguments.folder} already holds a model: name another folder.")
    state = read_state_dict(arguments.file)
    require_writable(arguments.folder)
    model = model_like(state, arguments.heads, arguments.step)
    load_state_dict(model, state, str(arguments.file))
    source = {"file": arguments.file.name, "sha256": sha256(arguments.file)}
    save_model(arguments.folder, model, {"source": source})
    print(f"{arguments.file}: {type(model).__name__} with {model.count_params():,} parameters, built with")
    for name, value in model.get_config().items():
        if name not in ("name", "trainable", "dtype"):
            print(f"  {name}: {value}")
    print(f"The model is in {arguments.folder}.")


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: convert(parsed), "python -m synth.pytorch")


if __name__ == "__main__":
    sys.exit(main())
