"""The data doctor: finds what is wrong with a data set before a training does."""

from omg_transformers.data.doctor.check import check_folder, check_source
from omg_transformers.data.doctor.kinds import KINDS, Kind
from omg_transformers.data.doctor.pages import write_report
from omg_transformers.data.doctor.preview import draw_preview
from omg_transformers.data.doctor.report import CheckReport, Problem, SplitReport, format_report

__all__ = [
    "KINDS",
    "CheckReport",
    "Kind",
    "Problem",
    "SplitReport",
    "check_folder",
    "check_source",
    "draw_preview",
    "format_report",
    "write_report",
]
