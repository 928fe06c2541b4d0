"""Settings of nbgrader for these exercises: run nbgrader in this folder.

    nbgrader generate_assignment 03_corruption_80_10_10
    nbgrader autograde 03_corruption_80_10_10
    nbgrader generate_feedback 03_corruption_80_10_10
    nbgrader export

Solutions are replaced by stubs that name their task, and submissions are marked by mlmkit's judge, behind walls.
"""

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader import preprocessors

from mlmkit.grading.nbgrader import Judge, Stubs

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "mlmkit"
c.GenerateAssignment.preprocessors = [
    preprocessors.IncludeHeaderFooter,
    preprocessors.LockCells,
    Stubs,
    preprocessors.ClearOutput,
    preprocessors.CheckCellMetadata,
    preprocessors.ComputeChecksums,
    preprocessors.SaveCells,
    preprocessors.ClearHiddenTests,
    preprocessors.ComputeChecksums,
    preprocessors.CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [
    Judge,
    preprocessors.IgnorePattern,
    ClearMetadataPreprocessor,
    preprocessors.LimitOutput,
    preprocessors.SaveAutoGrades,
    preprocessors.AssignLatePenalties,
    preprocessors.CheckCellMetadata,
]
