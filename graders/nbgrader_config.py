"""nbgrader's configuration for the course's exercises; `make assignments` copies it to where nbgrader is run."""

import os
from pathlib import Path

import nbconvert

c = get_config()  # noqa: F821 - nbgrader's own
c.CourseDirectory.course_id = "generative-models"
c.ClearSolutions.code_stub = {"python": "...  # your turn"}
c.ExecutePreprocessor.timeout = 120  # seconds for a cell: far more than any checker takes

# Feedback needs nbconvert's templates, which lie in the course's environment and not in that of the graders.
os.environ.setdefault("JUPYTER_PATH", str(Path(nbconvert.__file__).parents[4] / "share" / "jupyter"))
