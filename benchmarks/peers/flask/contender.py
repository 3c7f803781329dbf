"""Flask's development server, and gunicorn with its documentation's number of workers for one core, 2 x cores + 1."""

from pathlib import Path

from benchmarks.contender import Contender
from benchmarks.environments import python_of
from benchmarks.peers.ours.contender import ask, read_classic
from benchmarks.servers import Peer
from benchmarks.wire import HOST
from benchmarks.work import Work

APPLICATION = "benchmarks.peers.flask.service:app"
# On one core the libraries' own threads would only get into each other's way.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _development(work: Work, _: Path) -> Peer:
    command = (str(python_of("flask")), "-m", "flask", "--app", APPLICATION, "run", "--host", HOST, "--port", "{port}")
    return Peer(f"flask {work.name}", command, {"MODEL_PATH": str(work.artifact.file)} | ONE_THREAD)


def _gunicorn(work: Work, _: Path) -> Peer:
    options = f"--bind {HOST}:{{port}} --workers 3 --worker-class gthread --threads 2 --preload --log-level warning".split()
    command = (str(python_of("flask")), "-m", "gunicorn", *options, APPLICATION)
    return Peer(f"gunicorn {work.name}", command, {"MODEL_PATH": str(work.artifact.file)} | ONE_THREAD)


FLASK = Contender("flask", _development, ask, read_classic, "flask")
GUNICORN = Contender("gunicorn", _gunicorn, ask, read_classic, "flask")
