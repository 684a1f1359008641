"""`bertsmith push`: a model, exported and checked, to the Hugging Face hub or a server that speaks as it does.

The token is what `hf auth login` keeps, or `HF_TOKEN`; it is never an option, printed or part of an error. The server
is `HF_ENDPOINT`, by default the hub.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.errors import BertsmithError, UsageError
from bertsmith.export.directory import EXPORTED, export_directory
from bertsmith.model.weights import read_card, resolve_model_dir
from bertsmith.tasks.predict import own_card

_HELP = {
    401: "the token is missing or no longer valid; type hf auth login, or set HF_TOKEN to a token that may write",
    402: "the server asks for payment; free room there, or push to another name",
    403: "the token may not write there; take a token that may, or a name of your own (OWNER/NAME)",
    404: "the server knows no such owner or repository; check the name",
    409: "there is something of that name already, of another kind; take another name",
    413: "the server takes no files so large",
    429: "the server is asked too often; wait some minutes and give the same command again",
}
"""HTTP status -> what it means and what to do."""


@dataclass(frozen=True)
class Pushed:
    """What went, or would go, where."""

    name: str
    """OWNER/NAME, where the server has said who the owner is."""
    address: str
    files: dict[str, int]
    """File -> bytes."""
    commit: str | None
    """None where nothing was sent."""

    @property
    def megabytes(self) -> float:
        return sum(self.files.values()) / 1e6


def push(
    model: str | Path,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    languages: Sequence[str] = (),
    licence: str | None = None,
    message: str = "Model by bertsmith",
) -> Pushed:
    """Export a model to a folder aside, check it, and send it; a directory that was exported goes as it is.

    Models of task embed go with the files of sentence-transformers. An existing repository gets another commit.

    Raises `UsageError` for a name that cannot be, and `BertsmithError` in a sentence for what the server says.
    """
    _check_name(name)
    directory = resolve_model_dir(model)
    if EXPORTED in read_card(directory):
        return _send(directory, name, private=private, dry_run=dry_run, message=message)
    with tempfile.TemporaryDirectory(prefix="bertsmith-") as folder:
        out = Path(folder) / name.rpartition("/")[2]
        export_directory(
            directory,
            out,
            layout="sentence-transformers" if own_card(directory).get("task") == "embed" else "hf",
            title=name,
            languages=languages,
            licence=licence,
        )
        return _send(out, name, private=private, dry_run=dry_run, message=message)


def _send(directory: Path, name: str, *, private: bool, dry_run: bool, message: str) -> Pushed:
    from huggingface_hub import HfApi, constants

    files = {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    }
    endpoint = str(constants.ENDPOINT)
    if dry_run:
        return Pushed(name, f"{endpoint}/{name}", files, None)
    api = HfApi()
    try:
        made = api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.model_info(made.repo_id).private:
            raise UsageError(
                f"{made.repo_id} is there already, and public, and --private was asked for: nothing was sent; make it "
                "private on the server, or take another name"
            )
        sent = api.upload_folder(
            repo_id=made.repo_id, folder_path=directory, commit_message=message, allow_patterns=list(files)
        )
    except BertsmithError:
        raise
    except Exception as error:  # the hub client raises its own errors, and those of an HTTP library
        raise BertsmithError(f"{name} could not be pushed to {endpoint}: {_reason(error)}") from None
    return Pushed(made.repo_id, str(made), files, sent.oid)


def _reason(error: Exception) -> str:
    """A sentence, and no token in it."""
    from huggingface_hub import get_token

    inmost: BaseException = error
    while inmost.__cause__ is not None:  # "Error while uploading", say, comes from what the server answered
        inmost = inmost.__cause__
    for one in (error, inmost):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status in _HELP:
            return f"{status}: {_HELP[status]}"
    text = " ".join(str(inmost).split()) or type(inmost).__name__
    for secret in filter(None, [get_token()]):
        text = text.replace(secret, "[token]")
    return f"{text[:300]}; check the network and HF_ENDPOINT, and give the same command again"


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # by `import *` there

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"{name!r} is no name for a repository; give OWNER/NAME, such as ada/cola-tiny") from error


def as_json(found: Pushed) -> dict[str, Any]:
    return {**vars(found), "megabytes": round(found.megabytes, 3)}
