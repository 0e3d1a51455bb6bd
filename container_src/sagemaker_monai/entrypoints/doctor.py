"""`doctor`: examines a data set, writes a report and returns an exit code for pipelines.

Without a source it examines the channels of a SageMaker training job, or the input of a processing job.
"""

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from sagemaker_monai.data.label_rules import LabelRules
from sagemaker_monai.entrypoints.processing import Parser, run_command
from sagemaker_monai.errors import ConfigError, DatasetError
from sagemaker_monai.messages.item_names import current
from sagemaker_monai.messages.option_fields import add_options, options_of
from sagemaker_monai.sagemaker.environment import library_defaults
from sagemaker_monai.sagemaker.inputs import Places, base_folder, read_channels
from sagemaker_monai.storage.files import replacing, write_text

DESCRIPTION = (
    "Examine a data set: what it holds, which series cannot be used and why, copies, labels without images, patients "
    "on several sides of the split, what may identify patients, and attributes that give the label away."
)
EPILOGUE = (
    "OUTPUT gets doctor.json, doctor.html and contact_sheet.png. The exit code is 0 without errors, 1 for warnings "
    "with --strict, 2 for errors (data that cannot be used, or a score that would be wrong), 3 when nothing was "
    "examined (wrong arguments, no such folder, output not writable). Nothing that is printed or written names a "
    "patient, except file names with --show-names; the contact sheet shows patients' images."
)
JSON_NAME, HTML_NAME, SHEET_NAME = "doctor.json", "doctor.html", "contact_sheet.png"
NOT_EXAMINED = 3
MAX_PROCESSES = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Examine one data set.

    Args:
        argv: arguments of the command; None takes those of this process.

    Returns:
        The exit code, see `doctor --help`.
    """
    verdict = [NOT_EXAMINED]
    run_command(_parser, lambda options: _run(options, verdict), argv)
    return verdict[0]


def _parser() -> Parser:
    parser = Parser(prog="doctor", description=DESCRIPTION, epilog=EPILOGUE)
    parser.add_argument(
        "source", type=Path, nargs="?",
        help="folder, zip, tar or file; default: the channels of a job in /opt/ml",
    )  # fmt: skip
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME=FOLDER",
        help="one of several channels (training, validation, test), instead of a source; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="a folder outside of the data set (default: ./doctor)")
    parser.add_argument(
        "--labels", type=Path, metavar="CSV",
        help="a table of labels, with file names relative to the source; default: what train would read",
    )  # fmt: skip
    parser.add_argument(
        "--columns", default="", metavar="image=NAME,label=NAME,...",
        help="its columns for image, label, group (patient) and split, where they have other names",
    )  # fmt: skip
    add_options(parser, LabelRules)
    parser.add_argument(
        "--pixels", choices=("auto", "all", "sample", "none"), default="auto",
        help="which images are decoded, to find copies and broken data: all, a sample of 2,000, none; auto (default): "
        "all of up to 20,000 image files, else a sample",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, metavar="N",
        help="processes that read files (default: one per CPU); 0 reads in this one, which a broken file could crash",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="exit with 1 when there are warnings")
    parser.add_argument(
        "--show-names", action="store_true", help="show relative names of files, which may name patients"
    )
    parser.add_argument("--no-contact-sheet", action="store_true", help="draw no pictures of patients")
    return parser


def _run(options: Namespace, verdict: list[int]) -> None:
    os.environ.update(library_defaults(os.environ))
    channels = _channels(options, os.environ)
    output = _output(options, channels)
    # Imported late: this takes a second, and a wrong option should be refused at once.
    from sagemaker_monai.data.unpacking import unpack_channels
    from sagemaker_monai.doctor.contact_sheet import contact_sheet
    from sagemaker_monai.doctor.examine import Options, examine
    from sagemaker_monai.doctor.page import as_page
    from sagemaker_monai.doctor.processes import count_processes
    from sagemaker_monai.doctor.report import as_document, as_json, as_text, exit_code, summary

    processes = count_processes() if options.processes is None else options.processes
    if not 0 <= processes <= MAX_PROCESSES:
        raise ConfigError(f"--processes must be from 0 to {MAX_PROCESSES}, got {processes}")
    with tempfile.TemporaryDirectory(prefix="sagemaker-monai-") as name:
        scratch = Path(name)
        (scratch / "archives").mkdir()
        channels = unpack_channels(channels, scratch / "channels")
        examination = examine(
            channels,
            scratch / "archives",
            Options(
                labels=options.labels,
                columns=_columns(options.columns),
                rules=options_of(options, LabelRules),
                pixels=options.pixels,
                processes=processes,
                show_names=options.show_names,
            ),
        )
        drawn = None if options.no_contact_sheet else contact_sheet(examination, processes=processes)
    if options.show_names:
        current().show_all()
    names = examination.names if options.show_names else ()
    sheet = {"file": SHEET_NAME, "images": drawn[1]} if drawn else None
    source = "channels" if len(channels) > 1 else "file" if next(iter(channels.values())).is_file() else "folder"
    document = as_document(
        examination, source=source, is_strict=options.strict, show_names=options.show_names, sheet=sheet
    )
    output.mkdir(parents=True, exist_ok=True)
    if drawn:
        with replacing(output / SHEET_NAME) as part:
            part.write_bytes(drawn[0])
    else:
        (output / SHEET_NAME).unlink(missing_ok=True)  # from an earlier examination
    write_text(output / HTML_NAME, as_page(examination, sheet=drawn[0] if drawn else None, names=names))
    write_text(output / JSON_NAME, as_json(document))
    print(as_text(examination, names=names), flush=True)
    print(f"doctor: {summary(examination)}; {examination.seconds:.1f} s", flush=True)
    verdict[0] = exit_code(examination, is_strict=options.strict)
    if verdict[0]:
        raise DatasetError(summary(examination))  # a processing job shows it as its reason


def _channels(options: Namespace, environment: Mapping[str, str]) -> dict[str, Path]:
    if options.source is not None and options.channel:
        raise ConfigError("give a source or --channel, not both; see doctor --help")
    channels: dict[str, Path]
    if options.source is not None:
        channels = {"training": options.source}
    elif options.channel:
        channels = {}
        for text in options.channel:
            name, equals, folder = text.partition("=")
            if not (name and equals and folder) or name in channels:
                raise ConfigError("--channel must be NAME=FOLDER, each name once; see doctor --help")
            channels[name] = Path(folder)
    else:
        data = base_folder(environment) / "processing" / "input" / "data"
        channels = read_channels(Places.from_environment(environment), environment)
        channels = {name: folder for name, folder in channels.items() if name != "pretrained"}
        if not channels and data.is_dir():
            channels = {"training": data}
    if not channels:
        raise ConfigError("there is nothing to examine: name a folder; see doctor --help")
    if missing := [name for name, place in channels.items() if not place.exists()]:
        raise ConfigError(f"no such file or folder for {', '.join(missing)[:100]}: correct the path")
    if options.labels is not None and len(channels) > 1:
        raise ConfigError("--labels is for a single source")
    return channels


def _output(options: Namespace, channels: Mapping[str, Path]) -> Path:
    is_job = base_folder(os.environ).is_dir() and options.source is None and not options.channel
    output: Path = options.output or (base_folder(os.environ) / "processing" / "output" if is_job else Path("doctor"))
    real = os.path.realpath(output)
    for place in channels.values():
        base = os.path.realpath(place)
        if real == base or real.startswith(base + os.sep):
            raise ConfigError("the output lies inside the data set, which is never changed: name another with --output")
    if output.exists() and not output.is_dir():
        raise ConfigError("the output is a file: name a folder with --output")
    return output


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (name.strip() and equals and value.strip()) for name, equals, value in pairs):
        raise ConfigError("--columns must be like image=file,label=finding,group=patient_id")
    return {name.strip(): value.strip() for name, _, value in pairs}


if __name__ == "__main__":
    sys.exit(main())
