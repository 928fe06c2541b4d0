"""From a pre-trained encoder to a task: the encoder is kept, the head is replaced.

Sentences, pairs of sentences, or every word of a sentence are labeled. Several seeds say how sure a result is, and
`compare` says what pre-training bought: the same network from random weights, and counting words.
"""

from __future__ import annotations

from mlmkit.finetuning.comparison import Comparison, compare
from mlmkit.finetuning.counting import Baseline, bag_of_words, majority_class, most_frequent_tag
from mlmkit.finetuning.groups import Group, layer_groups
from mlmkit.finetuning.heads import SequenceClassifier, TokenClassifier, attach_head
from mlmkit.finetuning.metrics import Scores, confusion_matrix
from mlmkit.finetuning.pictures import plot_comparison, plot_confusion, plot_epochs
from mlmkit.finetuning.reading import load_task
from mlmkit.finetuning.recipe import FinetuneConfig
from mlmkit.finetuning.result import FinetuneResult
from mlmkit.finetuning.saving import Classifier, Prediction, load_classifier
from mlmkit.finetuning.seeds import finetune
from mlmkit.finetuning.task import Example, Task

__all__ = [
    "Baseline",
    "Classifier",
    "Comparison",
    "Example",
    "FinetuneConfig",
    "FinetuneResult",
    "Group",
    "Prediction",
    "Scores",
    "SequenceClassifier",
    "Task",
    "TokenClassifier",
    "attach_head",
    "bag_of_words",
    "compare",
    "confusion_matrix",
    "finetune",
    "layer_groups",
    "load_classifier",
    "load_task",
    "majority_class",
    "most_frequent_tag",
    "plot_comparison",
    "plot_confusion",
    "plot_epochs",
]
