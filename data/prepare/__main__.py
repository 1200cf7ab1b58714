"""Raw recordings to night files: ``python -m data.prepare --db sleepedf --data raw/sleepedf``."""

import argparse
import sys
from pathlib import Path

import command_line
from data.databases import DATABASES, database
from data.terms import InputError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = command_line.Parser(
        prog="python -m data.prepare",
        description="Turn recordings and their scorings into night files: 30-s epochs at 100 Hz with their stages. "
        "Finished nights are skipped, and nights that fail are listed; nights.csv lists the result of every night.",
    )
    parser.add_argument("--db", required=True, help=f"database: {', '.join(DATABASES)}")
    raw, nights = "folder of recordings and scorings, local or remote", "folder of night files, local or remote"
    parser.add_argument("--data", "--data_dir", metavar="DIR", help=f"{raw} (default raw/DB)")
    parser.add_argument("--out", "--output_dir", metavar="DIR", help=f"{nights} (default data/DB)")
    instead = "channels to take instead of the database's own"
    parser.add_argument("--select_ch", nargs="+", default=[], metavar="NAME", help=instead)
    parser.add_argument("--subjects", metavar="FILE", help=command_line.SUBJECTS)
    form = "form of the night files (default npz)"
    parser.add_argument("--format", choices=("npz", "parquet"), default="npz", help=form)
    described = "with --db custom: a .toml or .yaml file that describes your recordings"
    parser.add_argument("--spec", metavar="FILE", help=described)
    parser.add_argument(
        "--list", action="store_true", help="show what the recordings hold and what would be used, and write nothing"
    )
    parser.add_argument(
        "--download", action="store_true", help="first download Sleep-EDF into the folder of recordings"
    )
    command_line.add_workers(parser, "nights")
    return parser.parse_args(arguments)


def prepare(arguments: argparse.Namespace) -> int:
    db = database(arguments.db).db
    if (db == "custom") != (arguments.spec is not None):
        raise InputError("--db custom and --spec FILE belong together: give both or neither.")
    command_line.check_workers(arguments)
    from data.store import anywhere, location
    from data.writing import require_writable

    output = location(arguments.out or f"data/{db}")
    folder = location(arguments.data or f"raw/{db}")
    if arguments.cluster:
        output, folder = anywhere(output), anywhere(folder)
    if db == "synthetic":
        return _synthetic(arguments, output)

    from config import PreparationConfig
    from data.nights.folds import listed_subjects
    from data.prepare.batch import make_jobs, prepare_all, summary
    from data.prepare.custom import load_spec
    from data.prepare.sources import find_sources

    spec = load_spec(location(arguments.spec)) if db == "custom" else DATABASES[db]
    channels = spec.chosen(arguments.select_ch)
    if arguments.download:
        from data.prepare.download import download

        download(db, folder)
    wanted = listed_subjects(spec, location(arguments.subjects)) if arguments.subjects else ()
    sources = find_sources(spec, folder, wanted)
    if arguments.list:
        from data.prepare.listing import listing

        able = 0
        for source in sources:
            text, usable = listing(source, spec, channels, PreparationConfig())
            print(text)
            able += usable
        others = "" if able == len(sources) else "; see MISSING and CANNOT BE USED above"
        print(f"{able} of {len(sources)} recordings can be prepared{others}.")
        return int(able < len(sources))
    require_writable(output)
    jobs = make_jobs(sources, output, arguments.format, spec, channels, PreparationConfig())
    outcomes = prepare_all(jobs, output, arguments.jobs, arguments.cluster)
    print(summary(outcomes))
    failed = any(outcome.status == "failed" for outcome in outcomes)
    print(f"{'Some nights failed; the others are' if failed else 'All nights are'} in {output}, with nights.csv.")
    return int(failed)


def _synthetic(arguments: argparse.Namespace, output: Path) -> int:
    for option in ("data", "list", "download", "subjects"):
        if getattr(arguments, option):
            raise InputError(f"--{option} has no meaning for synthetic nights, which are not recorded: leave it out.")
    if arguments.select_ch or arguments.format != "npz":
        raise InputError(
            "synthetic nights are always written as .npz with all channels: leave --select_ch and --format out."
        )
    from config import SyntheticConfig
    from data.prepare.synthetic import ensure_nights

    spec = DATABASES["synthetic"]
    ensure_nights(output, spec, SyntheticConfig())
    print(f"{len(spec.subjects)} synthetic nights are in {output}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parsed = parse(arguments)
    return command_line.run(lambda: prepare(parsed), "python -m data.prepare")


if __name__ == "__main__":
    sys.exit(main())
