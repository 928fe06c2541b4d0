"""Run the notebooks from end to end and gather what they found.

A notebook states its findings with `learned`; `run_course` executes notebooks with papermill and reads the findings
back from the executed copies, so the table at the end shows numbers of this very run.
"""

from __future__ import annotations

from mlmkit.course.findings import Learned, learned
from mlmkit.course.report import CourseReport, NotebookResult
from mlmkit.course.running import find_notebooks, run_course

__all__ = ["CourseReport", "Learned", "NotebookResult", "find_notebooks", "learned", "run_course"]
