"""Every server of the comparison, by name."""

from benchmarks.contender import Contender
from benchmarks.peers.bentoml.contender import BENTOML
from benchmarks.peers.empty.contender import EMPTY
from benchmarks.peers.flask.contender import FLASK, GUNICORN
from benchmarks.peers.kserve.contender import KSERVE
from benchmarks.peers.litserve.contender import LITSERVE
from benchmarks.peers.mlserver.contender import MLSERVER
from benchmarks.peers.ours.contender import OURS
from benchmarks.peers.plain.contender import PLAIN
from benchmarks.peers.pytriton.contender import PYTRITON

CONTENDERS: dict[str, Contender] = {
    each.name: each for each in (OURS, EMPTY, PLAIN, FLASK, GUNICORN, MLSERVER, KSERVE, BENTOML, LITSERVE, PYTRITON)
}
