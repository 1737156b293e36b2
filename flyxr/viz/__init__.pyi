from .clusters import embedding as embedding
from .columns import hexmap as hexmap
from .courses import traces as traces
from .movie import frames as frames
from .page import report as report
from .stimulus import stimulus_response as stimulus_response
from .values import measures as measures
