"""The only reader of the environment: every setting with its default, its bounds and its meaning.

Order: command line, our variable, the platform's variable, the default. The names are those of the README's table and no
others. `load` raises BadSetting with the variable's name, what is allowed and the form of what came; the value itself is not
repeated, since a variable that was mixed up may hold a secret.
"""

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from runtime import platforms, uri
from runtime.errors import BadSetting

MIB = 1024 * 1024

# Read, but not the user's to set.
OF_THE_PLATFORM: Final = frozenset(
    {"kubernetes_service_host", "k_service", "aip_predict_route", "aip_health_route", "azureml_model_dir"}
)

# How alike two names are, by difflib: MODEL_PTAH and MODEL_PATH 0.90, MODEL_PORT, which Kubernetes sets beside a service called
# `model`, 0.80. Names as short as PORT are like too many others.
_ALIKE: Final = 0.85
_SHORTEST: Final = 5
# Of other programs, and so like ours that they would be named.
_FOREIGN: Final = frozenset({"NODE_PATH", "MODULE_PATH"})

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1, le=2**40)]
# A name goes into paths, labels and logs.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Route = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~:@-]+)*/?$")]
RootPath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$")]
# LOG_LEVEL=INFO is what many are used to write.
_lower = BeforeValidator(lambda given: given.lower() if isinstance(given, str) else given)

_MOST_WORKERS: Final = 64


def _workers(given: object) -> object:
    text = str(given).strip().lower()
    if text == "auto":
        return text
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        raise ValueError(f"should be auto, or a whole number from 1 to {_MOST_WORKERS}")
    return int(text)


def _uri(given: str) -> str:
    uri.parse(given)
    return given


def _sha256(given: str) -> str:
    found = given.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ValueError("should be 64 hex digits, as sha256sum and ml-runtime inspect print them")
    return found


class Settings(BaseModel):
    """One field a variable; the variable's name is the field's in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_uri: Annotated[str, AfterValidator(_uri)] | None = Field(
        None,
        description="where the model is fetched from at the start: s3://, gs://, az:// of a file or a prefix, https:// of a "
        "file; not together with MODEL_PATH",
    )
    model_path: Path = Field(
        Path("/app/models"), description="a model file, a directory with one model in it, or a model repository"
    )
    model_name: Name | None = Field(
        None,
        description="the model's name in paths, metrics and answers, by default its manifest's or model; "
        "in a model repository the one that /predict means",
    )
    model_version: Name | None = Field(
        None,
        description="the model's version label, by default its manifest's or 1; "
        "in a model repository the default model's version that is served where a path names none, by default the highest",
    )
    model_sha256: Annotated[str, AfterValidator(_sha256)] | None = Field(
        None,
        description="the SHA-256 that the model's file or directory must have, as ml-runtime inspect prints it",
    )
    model_cache: Path | None = Field(
        None, description="where fetched models are kept, by revision; by default a directory below the temporary one"
    )
    model_cache_bytes: Annotated[int, Field(ge=0, le=2**50)] = Field(
        4096 * MIB, description="what the cache may hold; beyond that old revisions are removed, but none that is in use"
    )
    fetch_policy: Annotated[Literal["always", "if-missing"], _lower] = Field(
        "always", description="always asks the store at the start; if-missing only where the cache has no revision of it"
    )
    host: str = Field("0.0.0.0", description="the address to listen on")  # noqa: S104 - a container's service is for others
    port: int = Field(8080, ge=0, le=65_535, description="the port to listen on; 0 takes a free one and logs it")
    bind: Annotated[Literal["early", "ready"] | None, _lower] = Field(
        None,
        description="when the port opens: early, or only with a ready model, for probes that only connect; "
        "by default early, ready if K_SERVICE is set",
    )
    root_path: RootPath = Field("", description="the prefix that a proxy leaves in the path, such as /models/churn")
    workers: Annotated[Literal["auto"] | int, BeforeValidator(_workers)] = Field(
        1, description="processes that serve; auto is one a CPU of the budget"
    )
    cpus: float | None = Field(
        None, gt=0, le=4096, description="the CPU budget; by default the smaller of affinity and the cgroup's quota"
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], _lower] = Field("auto", description="where ONNX models run")
    version_mismatch: Annotated[Literal["refuse", "warn"], _lower] = Field(
        "refuse", description="a pickle made with another minor version of scikit-learn; warn loads it, and says so everywhere"
    )
    code_path: Path = Field(Path("/app/code"), description="modules that models import, beside those in their own directories")
    max_batch_rows: PositiveInt = Field(256, description="rows of several requests that run as one batch, at most")
    max_queue_rows: PositiveInt = Field(4096, description="rows that may wait, and rows of one request; more are refused")
    max_body_bytes: PositiveInt = Field(64 * MIB, description="the largest request body")
    max_json_bytes: PositiveInt = Field(8 * MIB, description="the largest JSON or CSV body: reading it stalls everything else")
    max_inflight_bytes: PositiveInt | None = Field(
        None, description="all request bodies together; by default an eighth of the memory limit"
    )
    request_timeout_s: PositiveSeconds = Field(
        60, description="the deadline of a request; the header X-Request-Timeout-Ms can only shorten it"
    )
    header_timeout_s: PositiveSeconds = Field(10, description="how long a request's headers may take to arrive")
    body_timeout_s: PositiveSeconds = Field(30, description="how long a request's body may take to arrive")
    keep_alive_s: PositiveSeconds = Field(75, description="how long an idle connection is kept; longer than the proxy's")
    fetch_timeout_s: PositiveSeconds = Field(600, description="how long a fetch may take, all its attempts together")
    load_timeout_s: PositiveSeconds = Field(600, description="how long all models may take to load and warm up")
    wait_for_model_s: Seconds = Field(0, description="how long to wait at the start for a model to appear")
    stuck_after_s: PositiveSeconds = Field(
        300, description="a batch running longer than this turns ready to 503, and the worker is replaced"
    )
    drain_delay_s: Seconds | None = Field(
        None,
        description="served after SIGTERM before the listener closes; by default 5 if KUBERNETES_SERVICE_HOST is set, else 0",
    )
    grace_period_s: PositiveSeconds = Field(25, description="from SIGTERM to the end of the process, at the latest")
    reload: Annotated[Literal["none", "poll"], _lower] = Field(
        "none", description="poll looks for changed files and serves them; SIGHUP always does"
    )
    reload_interval_s: PositiveSeconds = Field(30, description="how often RELOAD=poll looks")
    log_format: Annotated[Literal["json", "text"] | None, _lower] = Field(
        None, description="by default text on a terminal, else json"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _lower] = Field(
        "info", description="the least level that is logged"
    )
    access_log: bool = Field(False, description="one log line a request")
    kubernetes_service_host: str = Field("", description="set by Kubernetes itself; only whether it is set counts")
    k_service: str = Field("", description="set by Knative and Cloud Run themselves; only whether it is set counts")
    aip_predict_route: Route = Field("", description="set by Vertex AI: the path that predicts there")
    aip_health_route: Route = Field("", description="set by Vertex AI: the path of its health check")
    azureml_model_dir: str = Field("", description="set by Azure ML: where the model lies")

    @property
    def drain_delay(self) -> float:
        """Seconds that are served after SIGTERM before the listener closes."""
        if self.drain_delay_s is not None:
            return self.drain_delay_s
        return 5.0 if self.kubernetes_service_host else 0.0

    @property
    def bind_early(self) -> bool:
        """Whether the port opens before a model is ready."""
        return (self.bind or ("ready" if self.k_service else "early")) == "early"

    def resolved(self) -> dict[str, Any]:
        """As plain values, with the defaults that depend on others filled in: what processes hand on to each other."""
        log_format = self.log_format or ("text" if sys.stderr.isatty() else "json")
        bind = "early" if self.bind_early else "ready"
        document = self.model_dump(mode="json")
        # It may hold a signature, and everybody can read a process's arguments; `model_uri` has it from the environment.
        shown = uri.parse(self.model_uri).shown if self.model_uri else None
        return {**document, "model_uri": shown, "log_format": log_format, "bind": bind, "drain_delay_s": self.drain_delay}


_BOTH: Final = "MODEL_URI and MODEL_PATH are both set, and there is one place where the model comes from: set one of them"


def load(path: str | Path | None = None, **given: Any) -> Settings:
    """Read the environment; what the command line says, `path` or URI and `given`, goes first. Raises BadSetting."""
    said = _environment() | {name: value for name, value in given.items() if value is not None}
    if path is not None:
        said = {name: value for name, value in said.items() if name not in ("model_uri", "model_path")}
        said["model_uri" if uri.looks_like_one(str(path)) else "model_path"] = str(path)
    of_platform = _of_the_platform(said)
    said = {name: value for name, (value, _) in of_platform.items()} | said
    if uri.looks_like_one(str(said.get("model_path", ""))):
        raise BadSetting("MODEL_PATH: it holds a URI, and is for a path; set MODEL_URI to it")
    if "model_uri" in said and "model_path" in said:
        raise BadSetting(_BOTH)
    try:
        made = Settings.model_validate(said)
    except ValidationError as error:
        raise BadSetting("; ".join(_sentence(fault, of_platform) for fault in error.errors(include_url=False))) from None
    if made.model_uri:
        os.environ["MODEL_URI"] = made.model_uri
        os.environ.pop("MODEL_PATH", None)
    return made


def model_uri() -> uri.ModelUri:
    """The URI itself, as `load` left it for this process and its children; it may hold secrets."""
    return uri.parse(os.environ["MODEL_URI"])


def model_cache(chosen: Settings) -> tuple[Path, bool]:
    """Where fetched models are kept, and whether nobody else may put anything there."""
    if chosen.model_cache is not None:
        return chosen.model_cache, False
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # none can be written; whoever makes the cache says so
        temporary = "/tmp"  # noqa: S108 - a directory of its own below, which must be this user's
    return Path(temporary) / f"ml-runtime-{os.geteuid()}", True


def model_store(found: uri.ModelUri) -> str:
    """What tells stores apart in which the same URI names different things."""
    variables = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "gs": ("STORAGE_EMULATOR_HOST",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    }
    return " ".join(f"{name}={value}" for name, value in of_others(*variables.get(found.scheme, ())).items())


def of_others(*names: str) -> dict[str, str]:
    """Variables that are not ours but a store's, as its own tools read them; those that are set to something."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _environment() -> dict[str, str]:
    """Our variables that are set to something, by their fields' names.

    Done here, since pydantic-settings for these lines took 60 ms of the command's start and 40 of the loader's.
    """
    return {field: value for name, value in os.environ.items() if value and (field := name.lower()) in Settings.model_fields}


def _of_the_platform(said: Mapping[str, Any]) -> platforms.Said:
    """What the platform says where nobody else has said anything."""
    found = platforms.said(os.environ, platforms.holds_something)
    places = {"model_uri", "model_path"}
    placed = places if places & said.keys() else set()
    return {name: value for name, value in found.items() if name not in {*said, *placed}}


def _sentence(fault: Any, of_platform: platforms.Said) -> str:
    field = str(fault["loc"][0])
    variable = of_platform[field][1] if field in of_platform else field.upper()
    meaning = Settings.model_fields[field].description
    came = fault.get("input")
    form = f"a text of {len(came)} characters" if isinstance(came, str) else type(came).__name__
    said = fault["msg"].removeprefix("Value error, ")
    return f"{variable}: {said[0].lower()}{said[1:]}; it holds {form}. It means: {meaning}"


# --- what is set, and from where --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting as it stands; a `problem` is the sentence that would end the start, and then `value` is None."""

    name: str
    default: object
    meaning: str
    value: object
    source: str  # "environment", "default", or the platform's variable
    problem: str = ""


def survey() -> list[Variable]:
    """Every variable with what it is now, in the order of the README's table; bad values raise nothing."""
    problems: dict[str, str] = {}
    own = _environment()
    of_platform = _of_the_platform(own)
    given = {name: value for name, (value, _) in of_platform.items()} | own
    try:
        current = Settings.model_validate(given)
    except ValidationError as error:
        problems = {str(fault["loc"][0]): _sentence(fault, of_platform) for fault in error.errors(include_url=False)}
        current = Settings.model_validate({name: value for name, value in given.items() if name not in problems})
    if {"model_uri", "model_path"} <= own.keys():
        problems.setdefault("model_path", _BOTH)
    return [
        Variable(
            name.upper(),
            field.default,
            field.description or "",
            None if name in problems else _shown(name, getattr(current, name)),
            "environment" if name in own else of_platform[name][1] if name in of_platform else "default",
            problems.get(name, ""),
        )
        for name, field in Settings.model_fields.items()
        if name not in OF_THE_PLATFORM or name in own
    ]


def _shown(name: str, value: object) -> object:
    return uri.parse(str(value)).shown if name == "model_uri" and value else value


def misspelt(names: Sequence[str] | None = None) -> list[str]:
    """A sentence for every variable of the environment that looks like one of ours and is none; values are not looked at."""
    ours = [name.upper() for name in Settings.model_fields if name not in OF_THE_PLATFORM]
    near = [name for name in ours if len(name) >= _SHORTEST]
    found = []
    for name in sorted(os.environ if names is None else names):
        if name.upper() in ours or name in _FOREIGN:
            continue
        meant = ["CPUS"] if name == "CPU" else difflib.get_close_matches(name.upper(), near, n=1, cutoff=_ALIKE)
        if meant:
            found.append(f"{ascii(name)[1:-1]} is no setting and has no effect; was {meant[0]} meant?")
    return found
