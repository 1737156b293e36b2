# The public names of flyxr. Type checkers read this table, and ``flyxr.lazy`` loads from it; see SPEC 1.
from . import accessor as accessor
from . import catalog as catalog
from . import eye as eye
from . import stimuli as stimuli
from . import training as training
from . import tuning as tuning
from . import viz as viz
from .clustering import cluster as cluster
from .clustering import cluster_stability as cluster_stability
from .connectome import open_connectome as open_connectome
from .ensemble import open_ensemble as open_ensemble
from .ensemble import sample_ensemble as sample_ensemble
from .eye import BoxEye as BoxEye
from .eye import HexEye as HexEye
from .eye import resample as resample
from .interchange import export_flyvis as export_flyvis
from .interchange import from_flyvis as from_flyvis
from .optimal import optimal_stimulus as optimal_stimulus
from .perturb import clamp as clamp
from .perturb import perturbation_effect as perturbation_effect
from .perturb import scale as scale
from .perturb import silence as silence
from .pretrained import fetch_pretrained as fetch_pretrained
from .selection import from_neurons as from_neurons
from .selection import to_neurons as to_neurons
from .simulation import Record as Record
from .simulation import Stepper as Stepper
from .simulation import simulate as simulate
from .stimuli.padding import pad_grey as pad_grey
from .store import open as open
from .store import save as save
from .sweeping import sweep as sweep
from .sweeping import sweep_status as sweep_status
from .training.running import train as train

__version__: str

def load_ipython_extension(ipython: object) -> None: ...
def unload_ipython_extension(ipython: object) -> None: ...
