"""Uploading a compressed folder to the Hugging Face hub, through huggingface_hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corecompress.errors import CorecompressError


def check_push(repo_id: str) -> None:
    """Before hours of work: is the name a legal one, and does the hub know who is asking?

    Raises CorecompressError that says what to mend.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except ValueError as problem:
        raise CorecompressError(f"--push-to-hub {repo_id}: {_one_line(problem)}; write ORG/NAME") from None
    try:
        HfApi().whoami()
    except Exception as problem:
        reason = f"{type(problem).__name__}: {_one_line(problem)}"
        raise CorecompressError(
            f"--push-to-hub {repo_id}: the hub does not take your token ({reason}); "
            "run `hf auth login`, or set HF_TOKEN"
        ) from None


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Create the repository if it isn't there, upload every file in one commit, and return its address.

    Raises CorecompressError when the hub refuses; the local folder stays as it is.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        commit: Any = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Compressed with corecompress"
        )
    except Exception as problem:
        raise CorecompressError(
            f"--push-to-hub {repo_id}: {type(problem).__name__}: {_one_line(problem)}; {folder} is complete, "
            f"push it with `hf upload {repo_id} {folder}`"
        ) from None
    return str(getattr(commit, "commit_url", "") or commit)


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]
