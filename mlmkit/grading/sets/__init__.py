"""The exercise sets: one module for each exercise notebook, in the order of the course."""

from __future__ import annotations

import importlib
from functools import cache

from mlmkit.errors import UserError
from mlmkit.grading.tasks import Task, TaskSet

MODULES = {
    "01_sequence_models": "sequence_models",
    "02_masking_math": "masking_math",
    "03_corruption_80_10_10": "corruption",
    "04_limits_and_relatives": "limits",
    "05_wordpiece": "wordpiece",
    "06_sentence_pairs": "sentence_pairs",
    "07_batches": "padded_batches",
    "08_embeddings": "embedding_sum",
    "09_encoder": "encoder_layer",
    "10_heads_and_losses": "heads",
    "11_pretrain_on_a_laptop": "training_loop",
    "12_pretrain_on_a_gpu": "speed",
    "13_what_did_it_learn": "what_it_learned",
    "14_from_mlm_to_tasks": "downstream",
    "15_beyond_bert": "beyond",
    "16_choosing_and_debugging": "cases",
    "17_capstone": "capstone",
}
"""Exercise notebook → module of this package that holds its tasks."""


@cache
def task_set(name: str) -> TaskSet:
    """The set of one exercise notebook.

    Args:
        name: of the notebook, or its number: "03_corruption_80_10_10", "03", "3".

    Raises:
        UserError: there is no such set.
    """
    number = name.split("_")[0].zfill(2)
    for full in MODULES:
        if full == name or (full.split("_")[0] == number and name == name.split("_")[0]):
            module = importlib.import_module(f"mlmkit.grading.sets.{MODULES[full]}")
            return TaskSet(full, tuple(module.TASKS))
    raise UserError(f"no exercise set {name!r}; there are {', '.join(MODULES)}")


def all_sets() -> list[TaskSet]:
    """Every set, in the order of the course."""
    return [task_set(name) for name in MODULES]


def task_named(id: str) -> Task:
    """The task with an id.

    Args:
        id: "03.9", or shorter "3.9".

    Raises:
        UserError: there is no such task.
    """
    number, _, rest = str(id).partition(".")
    wanted = f"{number.zfill(2)}.{rest}"
    tasks = task_set(number).tasks
    for task in tasks:
        if task.id == wanted:
            return task
    raise UserError(f"no task {id!r}; set {number.zfill(2)} has {', '.join(task.id for task in tasks)}")
