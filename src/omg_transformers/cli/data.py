"""Look at data sets on disk: which layout, what is wrong, what they look like, and the same in another layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.cli import held_out, question

if TYPE_CHECKING:
    from collections.abc import Callable

    from omg_transformers.data import SampleSource
    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

SUMMARY = "look at data sets: layout, faults, pictures, conversion"
TARGETS = ("coco_panoptic", "coco_instances", "youtube_vis", "davis", "yolo_seg")
_EXAMPLES = """examples:
  $ omg-seg data detect COCO
  $ omg-seg data check COCO --out checked
  $ omg-seg data preview COCO --split val2017 --out sheet.png
  $ omg-seg data convert COCO --to yolo_seg --out COCO_yolo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The four commands about data."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text.split(".")[0], description=text)
        added.set_defaults(work=work)
        added.add_argument("folder", type=Path, metavar="DIR", help="root folder of the data set")
        added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return added

    detect = command("detect", _detect, "Say which layouts a folder is in. Exit status 1 when it is in none.")
    detect.add_argument("--json", action="store_true", help="print JSON")
    check = command(
        "check",
        _check,
        "Find what is wrong with a data set. Every sample of every split is read. Exit status: 0 nothing, warnings or "
        "notes; 1 errors (with --strict also warnings).",
    )
    _add_choice(check)
    check.add_argument(
        "--against", type=Path, action="append", default=[], metavar="DIR",
        help="another data set that must not share pictures with this one; repeatable",
    )  # fmt: skip
    check.add_argument("--out", type=Path, help="folder for report.md with pictures, and report.json")
    check.add_argument("--limit", type=question.read_count, help="only the first samples of each split")
    check.add_argument("--strict", action="store_true", help="exit status 1 for warnings as well")
    check.add_argument("--json", action="store_true", help="print the whole report as JSON")
    preview = command("preview", _preview, "Draw annotated samples on one sheet, with names. Clips: a few frames.")
    _add_choice(preview)
    preview.add_argument(
        "--num", type=question.read_count, default=12, help="how many samples, spread over all (%(default)s)"
    )
    preview.add_argument("--out", type=Path, default=Path("sheet.png"), help="the picture to write (%(default)s)")
    convert = command("convert", _convert, "Write a data set in another layout. Says what that layout cannot hold.")
    _add_choice(convert)
    convert.add_argument("--to", required=True, choices=TARGETS, help="the layout to write")
    convert.add_argument("--out", type=Path, required=True, help="folder to write to; its splits must be new")
    convert.add_argument("--skip-bad", action="store_true", help="leave out samples that cannot be read, and name them")


def run(options: argparse.Namespace) -> int:
    """Run one of the four."""
    status: int = options.work(options)
    return status


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", help="the layout, see `omg-seg data detect` (the first that fits)")
    parser.add_argument("--split", action="append", help="only this split; repeatable (all)")
    parser.add_argument(
        "--label-space", metavar="NAME|FILE.json", help="read into these classes, built-in or of a file (own)"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the reader; repeatable"
    )


def _detect(options: argparse.Namespace) -> int:
    from omg_transformers.data.doctor.detection import describe_folder_layouts, describe_near, sets_inside

    found = describe_folder_layouts(options.folder)
    if options.json:
        import json

        near, inside = ("", sets_inside(options.folder)) if found else (describe_near(options.folder), {})
        print(json.dumps({"folder": str(options.folder), "layouts": found, "near": near, "inside": inside}, indent=1))
        return 0 if found else 1
    if not found:
        print(f"{options.folder} is in no known layout. {describe_near(options.folder)}")
        return 1
    for layout in found:
        print(f"{layout['kind']} ({layout['title']})")
        for split in layout["splits"]:
            if "error" in split:
                print(f"  {split['split']}: cannot be opened: {split['error']}")
                continue
            noun = "videos" if split["is_video"] else "samples"
            names = f": {', '.join(split['classes'][:6])}{' ...' if split['num_classes'] > 6 else ''}"
            classes = f"{split['num_classes']} classes{names}" if split["num_classes"] else "no classes"
            print(f"  {split['split']}: {split['num_samples']} {noun}, {classes}")
            print(f"    serves {', '.join(split['tasks']) or 'no installed task'}")
    if inside := sets_inside(options.folder):
        print("folders in it fit other layouts; give one of them if it is a data set of its own:")
        print("\n".join(f"  {name}: {', '.join(layouts)}" for name, layouts in inside.items()))
    return 0


def _check(options: argparse.Namespace) -> int:
    import json

    from omg_transformers.cli.folders import prepare_folder
    from omg_transformers.data.doctor import check_folder, format_report, write_report

    space = _label_space(options.label_space)
    if options.out is not None:
        prepare_folder(options.out)
    report = check_folder(
        options.folder,
        options.kind,
        options.split,
        label_space=space,
        against=options.against,
        limit=options.limit,
        show_progress=True,
        **_reader_options(options),
    )
    print(json.dumps(report.to_dict(), indent=1) if options.json else format_report(report))
    if options.kind is None and not options.json:
        _name_other_layouts(options.folder)
    if options.out is not None:
        path = write_report(report, options.out)
        if not options.json:
            print(f"written: {path}")
    return 0 if report.is_sound(strict=options.strict) else 1


def _name_other_layouts(folder: Path) -> None:
    from omg_transformers.data import detect_layouts

    others = [detection.layout.name for detection in detect_layouts(folder)[1:]]
    if others:
        print(f"the folder also fits {', '.join(others)}: --kind {others[0]} checks that")


def _preview(options: argparse.Namespace) -> int:
    from omg_transformers.cli.folders import prepare_folder
    from omg_transformers.data.doctor import draw_preview
    from omg_transformers.formats.atomic_file import write_png

    if options.out.suffix.lower() != ".png":
        raise ValueError(f"--out {options.out}: expected a name that ends with .png")
    kind, sources = _open(options)
    prepare_folder(options.out.parent)
    sheet, failures = draw_preview(sources, num=options.num, title=f"{options.folder} as {kind}")
    for failure in failures:
        print(f"cannot be shown: {failure}")
    print(f"written: {write_png(options.out, sheet)}")
    return 1 if failures else 0


def _convert(options: argparse.Namespace) -> int:
    from omg_transformers.cli.folders import prepare_folder
    from omg_transformers.data.writers import check_target, format_written, write_source

    _, sources = _open(options)
    prepare_folder(options.out)
    for split in sources:
        check_target(options.to, options.out, split)
    status = 0
    for split, source in sources.items():
        on_error: OnError = "skip" if options.skip_bad else "raise"
        written = write_source(source, options.to, options.out, split, on_error=on_error, show_progress=True)
        print(format_written(written))
        status = status or int(bool(written.skipped))
    print(f"written: {options.out}")
    return status


def _open(options: argparse.Namespace) -> tuple[str, dict[str, SampleSource]]:
    from omg_transformers.data import open_layout
    from omg_transformers.data.doctor.check import choose_layout

    space = _label_space(options.label_space)
    kind, splits = choose_layout(options.folder, options.kind, options.split)
    extra = _reader_options(options)
    return kind, {split: open_layout(kind, options.folder, split, label_space=space, **extra) for split in splits}


def _label_space(name: str | None) -> LabelSpace | None:
    if name is None:
        return None
    from omg_transformers.formats.atomic_file import read_json
    from omg_transformers.labels import LabelSpace, builtin_label_space

    return LabelSpace.from_dict(read_json(name)) if name.endswith(".json") else builtin_label_space(name)


def _reader_options(options: argparse.Namespace) -> dict[str, Any]:
    return held_out.read_pairs(options.option, "--option")
