"""Tasks: what is predicted, and all that training, prediction and explanation need of it.

A task is one class in one module, and one entry in `TASKS`. The classes are settings, so that importing them loads no
torch: the methods that compute on tensors import it when they are called.
"""

from longvit.tasks.cox_task import CoxTask
from longvit.tasks.nll_task import NllTask
from longvit.tasks.subtype_task import SubtypeTask
from longvit.tasks.task import Task

TASKS: tuple[type[Task], ...] = (SubtypeTask, CoxTask, NllTask)
"""The registry; `task.kind` of the settings chooses one."""
