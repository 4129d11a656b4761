"""The memory that the processes of a Cache share: photos, the table of their names, and who uses what.

The keeper has a :class:`PhotoMemory`, each worker a :class:`MemoryReader`.
"""

from cache.memory.descriptors import Kept, NewPhoto
from cache.memory.filling import Filling
from cache.memory.photos import MemoryUsage, PhotoMemory, WorkerShare
from cache.memory.plan import MemoryPlan, plan_memory
from cache.memory.reader import MemoryReader, Record

__all__ = [
    "Filling",
    "Kept",
    "MemoryPlan",
    "MemoryReader",
    "MemoryUsage",
    "NewPhoto",
    "PhotoMemory",
    "Record",
    "WorkerShare",
    "plan_memory",
]
