"""The report of a run: one HTML page that holds all it shows, and loads nothing."""

from gpuprop.learn.report.page import ReportContent, ReportRow, report_page

__all__ = ["ReportContent", "ReportRow", "report_page"]
