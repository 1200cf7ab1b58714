"""Download Sleep-EDF from PhysioNet through MNE, which checks every file's hash."""

from pathlib import Path

from data.databases import DATABASES
from data.terms import InputError, in_one_line

DOWNLOADABLE = ("sleepedf", "sleepedfx")


def download(db: str, folder: Path) -> None:
    """Download the files of ``db`` that ``folder`` lacks; InputError if that is impossible or the server refuses."""
    if db not in DOWNLOADABLE:
        raise InputError(
            f"--download works only for {' and '.join(DOWNLOADABLE)}: ask the owners of {db} for it, and leave "
            "--download out."
        )
    import mne
    import pooch
    from tqdm import tqdm

    pooch.get_logger().setLevel("WARNING")  # Its line for every file would break the progress bar.
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(DATABASES[db].subjects, desc=f"downloading {db}", unit="subject") as subjects:
        for subject in subjects:
            try:
                # Three subjects have only one night, because the other was lost; MNE ignores the missing nights.
                mne.datasets.sleep_physionet.age.fetch_data(
                    subjects=[subject], recording=(1, 2), path=folder, on_missing="ignore", verbose="error"
                )
            except (OSError, ValueError, RuntimeError) as error:
                what = f"subject {subject} of {db} could not be downloaded ({in_one_line(error)})"
                raise InputError(f"{what}: run the same command again; finished files are kept.") from None
