"""What platforms say in variables of their own, as settings: port, model and paths, so that one image runs on all of them.

A variable of ours goes before a platform's, which goes before a default. Pure; `settings.py` asks. Standard library only.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

# Azure ML's containers are asked there.
_AZURE_PORT: Final = "5001"
# Where platforms mount the model: KServe, SageMaker.
DIRECTORIES: Final = (Path("/mnt/models"), Path("/opt/ml/model"))

# By the setting: the value, and where it comes from.
Said = dict[str, tuple[str, str]]


def said(environment: Mapping[str, str], holds_something: Callable[[Path], bool]) -> Said:
    """What the platform says of `port`, `model_uri` and `model_path`.

    `holds_something` tells whether a directory is there and not empty.
    """
    found: Said = {}
    for variable in ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"):
        if environment.get(variable):
            found.setdefault("port", (environment[variable], variable))
    azure = environment.get("AZUREML_MODEL_DIR")
    if azure:
        found.setdefault("port", (_AZURE_PORT, "AZUREML_MODEL_DIR"))
    if environment.get("AIP_STORAGE_URI"):
        found["model_uri"] = environment["AIP_STORAGE_URI"], "AIP_STORAGE_URI"
    elif azure:
        found["model_path"] = azure, "AZUREML_MODEL_DIR"
    else:
        mounted = next((each for each in DIRECTORIES if holds_something(each)), None)
        if mounted is not None:
            found["model_path"] = str(mounted), f"{mounted} is there"
    return found


def holds_something(directory: Path) -> bool:
    """Whether a directory is there and not empty; one that may not be read is the platform's, too, and said to be closed."""
    try:
        return any(directory.iterdir())
    except PermissionError:
        return True
    except OSError:
        return False
