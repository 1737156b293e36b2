from .losses import activity_penalty as activity_penalty
from .losses import flow_loss as flow_loss
from .losses import parameter_penalty as parameter_penalty
from .losses import response_loss as response_loss
from .running import calibrated_ensemble as calibrated_ensemble
from .running import train as train
