"""Write embeddings of recordings as tables.

``python -m synth.embed --dir output/shhs/0 --recording nights/ --out tables/``
"""

import argparse
import sys
from pathlib import Path

import command_line
from synth.terms import FORMATS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m synth.embed",
        description="Write the embeddings that a pretrained encoder of SynthSleepNet computes from recordings: a table "
        "for each recording, with a row for each epoch of 30 seconds.",
    )
    add = parser.add_argument
    folds = "a fold, whose multimodal encoder is used, or the folder of any encoder"
    add("--dir", type=Path, required=True, metavar="FOLD", help=folds)
    command_line.add_recordings(add, required=True)
    channel = (
        "channel or derivation for a modality, as MODALITY=NAME; repeatable (default: the channel of the training, or "
        "the most similar one)"
    )
    add("--channel", action="append", default=[], metavar="NAME", help=channel)
    add("--format", choices=FORMATS, default=FORMATS[0], help=f"format of the tables (default {FORMATS[0]})")
    command_line.add_workers(parser, "recordings")
    return parser.parse_args(arguments)


def embed(arguments: argparse.Namespace) -> int:
    """Embed recordings, and return the exit code: 1 if some failed, else 0."""
    sources, trained, folder = command_line.recordings_and_folders(arguments)
    from staging.batch import Models, work_on_all
    from synth.recordings import Embedding, Settings, load_embedder

    settings = Settings(tuple(arguments.channel), arguments.format, arguments.overwrite)
    models = Models(load_embedder, trained)
    outcomes = work_on_all(Embedding, sources, models, folder, settings, arguments.jobs, arguments.cluster)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: embed(parsed), "python -m synth.embed")


if __name__ == "__main__":
    sys.exit(main())
