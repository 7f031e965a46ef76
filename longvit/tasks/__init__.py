"""Tasks: predicted quantities, each with everything that training, prediction and explanation need for it.

A task is one class in one module, and one entry in `TASKS`. The classes are settings, and importing them does not load
torch: methods that compute on tensors import torch when they are called.
"""

from longvit.tasks.cox_task import CoxTask
from longvit.tasks.nll_task import NllTask
from longvit.tasks.subtype_task import SubtypeTask
from longvit.tasks.task import Task

TASKS: tuple[type[Task], ...] = (SubtypeTask, CoxTask, NllTask)
"""Registry of tasks; `task.kind` of the settings chooses a task."""
