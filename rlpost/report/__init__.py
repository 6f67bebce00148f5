"""What a run leaves behind for its user: numbers, rollouts, a result, and one page that shows them all.

Everything here reads or writes a run folder and knows neither Ray nor a model. Left out: the display of a run under
way (progress.py) and the terminal's view of a run (view.py).
"""

from rlpost.report.files import ReportError
from rlpost.report.metrics import MetricsWriter, read_metrics
from rlpost.report.page import build_report
from rlpost.report.result import EvalSummary, ResultRecord, package_versions, read_result, write_result
from rlpost.report.rollouts import RolloutWriter, read_rollouts, rollout_record
from rlpost.report.statistics import wilson_interval
from rlpost.report.tokens import TokenDisplay

__all__ = [
    "EvalSummary",
    "MetricsWriter",
    "ReportError",
    "ResultRecord",
    "RolloutWriter",
    "TokenDisplay",
    "build_report",
    "package_versions",
    "read_metrics",
    "read_result",
    "read_rollouts",
    "rollout_record",
    "wilson_interval",
    "write_result",
]
