"""Exercises that grade themselves: the check in the notebook, the judge for marks, and what a learner reads."""

from mlmkit.grading.checking import CheckFailed, ask, check, hint, learner
from mlmkit.grading.overview import Progress, progress

__all__ = ["CheckFailed", "Progress", "ask", "check", "hint", "learner", "progress"]
