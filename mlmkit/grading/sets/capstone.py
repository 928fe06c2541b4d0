"""The capstone: six functions of earlier exercises in the real trainer."""

from __future__ import annotations

from mlmkit.grading.tasks import CapstoneTask

TASKS = (
    CapstoneTask(
        id="17.1",
        title="Train a BERT with your own functions",
        points=20,
        concepts=("C10", "C13", "C21", "C24", "C25"),
        parts={
            "select_positions": "03.10",
            "corrupt_tokens": "03.11",
            "make_pairs": "06.7",
            "mlm_loss": "02.10",
            "pretraining_loss": "10.10",
            "attention": "09.10",
        },
    ),
)
