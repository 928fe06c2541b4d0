"""From the name of a checkpoint to a folder on this disk, through the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from mlmkit.errors import UserError
from mlmkit.weights import WEIGHT_FILES

DESCRIPTION = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
SAFETENSORS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")


def fetch(folder_or_name: str | Path, revision: str | None = None) -> Path:
    """Find a checkpoint: a folder as it is, a name on the Hugging Face hub as a folder of the hub's own cache.

    Of a repository only what a BERT needs is fetched; its pickles only where it has no safetensors.

    Args:
        folder_or_name: a folder, or for example "google-bert/bert-base-uncased".
        revision: branch, tag or commit of a repository on the hub; None for its main branch.

    Raises:
        UserError: it is neither, the hub cannot be reached, or a revision is asked of a folder.
    """
    folder, name = Path(folder_or_name).expanduser(), str(folder_or_name)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{folder} is a folder on this disk and has no revision {revision!r}: leave it away")
        return folder
    if folder.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise UserError(
            f"{name} is neither a folder nor a name on the Hugging Face hub such as google-bert/bert-base-uncased"
        )
    found = _download(name, revision, (*DESCRIPTION, *SAFETENSORS))
    if not any((found / file).is_file() for file in WEIGHT_FILES):
        found = _download(name, revision, (*DESCRIPTION, *PICKLES))
    return found


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except RepositoryNotFoundError:
        reason = "the Hugging Face hub has no such repository, or keeps it private"
    except RevisionNotFoundError:
        reason = f"the repository has no revision {revision!r}"
    except LocalEntryNotFoundError:
        reason = "the Hugging Face hub cannot be reached, and the checkpoint is not in its cache on this disk"
    except Exception as error:  # the network fails in many ways
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    at = f" at {revision}" if revision else ""
    raise UserError(f"{name}{at} could not be fetched ({reason}); a folder with the checkpoint works too")
