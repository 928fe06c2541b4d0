"""Why a loss will not fall: name the fault of a run, a batch or a training loop, with the number that proves it."""

from mlmkit.diagnosis.batch import diagnose_batch
from mlmkit.diagnosis.findings import FAULTS, Diagnosis, Finding
from mlmkit.diagnosis.planted import plant
from mlmkit.diagnosis.recorder import record
from mlmkit.diagnosis.run import diagnose

__all__ = ["FAULTS", "Diagnosis", "Finding", "diagnose", "diagnose_batch", "plant", "record"]
