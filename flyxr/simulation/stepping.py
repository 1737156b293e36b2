"""Frame by frame: responses to a stimulus that depends on the responses, as in a closed loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flyxr import hexgrid, schema
from flyxr.arguments import Arguments, shorten
from flyxr.connectome import cell_index, cell_presence, compile_network, find_connectome
from flyxr.engine import ENGINES
from flyxr.errors import InputError, Problem, raise_problems
from flyxr.optics import GREY
from flyxr.simulation.block import DIVERGED, diverged, steady_state, threads_of
from flyxr.simulation.checks import prepare, sort_columns
from flyxr.simulation.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    from numpy.typing import NDArray

    from flyxr.simulation.checks import Prepared

INITIAL_STATES = ("steady_state", "rest")
RENDERING_DIMS = ("sample", "time", "column")
STATE_DIMS = ("model", "sample", "cell_type", "column")


class Stepper:
    """Simulate models frame by frame: one frame in, responses out.

    The responses have the same bits as those of :func:`flyxr.simulate` to the same frames. Weights, states and buffers
    stay in memory between steps, and nothing is compiled in a step. Two eyes are two samples.

    Parameters
    ----------
    ensemble
        Parameters of models.
    dt
        Integration step, s; each frame is one step.
    n_samples
        Number of samples that are simulated side by side.
    record
        What :meth:`step` returns, as in :func:`flyxr.simulate`, without times.
    initial_state
        ``"steady_state"``: one second of grey 0.5, from rest. ``"rest"``: the potential is the bias. Or a state, such
        as :attr:`state` or ``responses.isel(time=-1)``. There is no ``"fade_in"``, which depends on the first frame.
    connectome, engine, device
        As in :func:`flyxr.simulate`.

    Raises
    ------
    SchemaError
        If the ensemble does not fit the schema or the connectome, or the initial state does not fit them.
    UnknownCellTypeError
        If ``record`` names unknown cell types.
    InputError
        A ValueError. If another argument is invalid.

    Notes
    -----
    A stepper is not thread-safe: use one for each thread. It can be pickled, with its state.

    Examples
    --------
    >>> import flyxr as fx
    >>> connectome = fx.open_connectome(extent=2)
    >>> models = fx.sample_ensemble(2, seed=0, connectome=connectome)
    >>> stepper = fx.Stepper(models, dt=1 / 100, n_samples=2, record=["T4*"], connectome=connectome)
    >>> left, right = np.full(19, 0.2), np.full(19, 0.8)
    >>> stepper.step([left, right]).shape
    (2, 2, 4, 19)
    >>> stepper.labels["cell_type"].values.tolist(), stepper.time
    (['T4a', 'T4b', 'T4c', 'T4d'], 0.01)
    """

    def __init__(
        self,
        ensemble: xr.Dataset,
        dt: float = 1 / 100,
        *,
        n_samples: int = 1,
        record: Record | str | Iterable[str] | Mapping[str, Any] = "central",
        initial_state: Literal["steady_state", "rest"] | xr.Dataset | xr.DataArray = "steady_state",
        connectome: xr.Dataset | None = None,
        engine: str = "auto",
        device: str = "auto",
    ) -> None:
        arguments = Arguments("cannot make a stepper")
        dt = arguments.duration("dt", dt)
        n_samples = arguments.integer("n_samples", n_samples, least=1)
        if isinstance(initial_state, str) and initial_state not in INITIAL_STATES:
            text = f"expected initial_state 'steady_state', 'rest' or a state, got {initial_state!r}"
            hint = (
                "'fade_in' depends on the first frame: simulate it with fx.simulate, and give responses.isel(time=-1)"
            )
            arguments.problems.append(Problem(text, hint))
        record = Record.take(record)
        if record.time != slice(None, None, 1):
            arguments.problems.append("expected a record without time, got one: each step returns one time")
        arguments.raise_problems()

        ensemble = schema.in_memory(schema.expand(ensemble, "ensemble")[0])
        connectome = find_connectome(ensemble.attrs, connectome, stacklevel=3)
        self._ensemble = ensemble.assign_attrs(connectome=connectome.attrs["connectome"])
        self._connectome = connectome
        self._options = {"n_samples": n_samples, "dt": dt, "record": record, "engine": engine, "device": device}
        prepared = self._prepare(initial_state)
        self._block, self._model_names = prepared.block, prepared.model_names
        self._options |= {"engine": self._block.engine, "device": self._block.device}
        self._labels = prepared.labels.drop_vars("luminance").squeeze("time", drop=True)
        self._n_columns = prepared.luminance.sizes["column"]
        self._columns = {name: prepared.luminance[name].values for name in ("column", "u", "v")}

        index = cell_index(self._block.tables)
        self._recorded = index[np.ix_(self._block.recorded.cell_types, self._block.recorded.columns)]
        self._is_present = self._recorded >= 0
        self._engine = ENGINES[self._block.engine].load_stepper()(
            compile_network(self._block.tables),
            prepared.parameters,
            dt,
            n_samples=n_samples,
            cells=self._recorded[self._is_present],
            device=self._block.device,
        )
        self._initial = self._engine.state
        if self._block.start == "steady_state":
            self._initial = steady_state(self._block, prepared.parameters)
        elif prepared.state is not None:
            self._initial = np.asarray(prepared.state.values)
        self._advance(np.full((n_samples, self._n_columns), GREY, np.float32))  # compiles what is not compiled yet
        self.reset()

    def step(self, luminance: Any, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Advance by one frame.

        Parameters
        ----------
        luminance : (sample, column) or (column,)
            Luminance from 0 to 1; without samples only if ``n_samples`` is 1. Also a labelled frame, such as
            ``rendering.isel(time=0)``; its columns are matched by label, its samples by position.
        out : (model, sample, cell_type, column), optional
            Array for the responses, float32. By default each step returns a new one.

        Returns
        -------
        (model, sample, cell_type, column)
            Responses after the frame, float32, NaN where a type has no cell; :attr:`labels` are their labels.

        Raises
        ------
        SchemaError
            If the luminance does not fit the stepper, is not finite, or is outside 0 to 1. The state stays as it was.
        InputError
            A ValueError. If ``out`` has another shape or dtype. The state stays as it was.
        DivergedError
            If recorded responses grow without bound. Call :meth:`reset`, and use a smaller step.
        """
        frame = self._take_frame(luminance)
        shape = (len(self._model_names), len(frame), *self._recorded.shape)
        if out is not None and (getattr(out, "shape", None), getattr(out, "dtype", None)) != (shape, np.float32):
            got = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InputError(Problem(f"expected out as a float32 array of shape {shape}, got {got}", "leave it out"))
        responses = self._advance(frame)
        self._n_steps += 1
        largest = np.abs(responses).max(axis=(1, 2), initial=0)
        if not largest.max() <= DIVERGED:
            raise diverged(largest.max(), self._model_names[int(largest.argmax())], self._block.dt)
        out = np.empty(shape, np.float32) if out is None else out
        out[..., ~self._is_present] = np.nan
        out[..., self._is_present] = responses
        return out

    def reset(self) -> None:
        """Return to the initial state, at time 0."""
        self._engine.state = self._initial
        self._n_steps = 0

    @property
    def time(self) -> float:
        """Time of the next frame, s: 0 at first."""
        return self._n_steps * self._block.dt

    @property
    def labels(self) -> xr.Dataset:
        """Labels of the responses: a Dataset with coordinates only, over model, sample, cell_type and column.

        Examples
        --------
        >>> import flyxr as fx
        >>> stepper = fx.Stepper(fx.open_ensemble("flyxr").isel(model=[0]), record="central")
        >>> responses = stepper.step(np.full(721, 0.5))
        >>> dims = ("model", "sample", "cell_type", "column")
        >>> stepper.labels.assign(response=(dims, responses)).fly.central("T4*").response.sizes["cell_type"]
        4
        """
        return self._labels.copy()

    @property
    def state(self) -> xr.Dataset:
        """State of all cells: ``response`` (model, sample, cell_type, column), NaN where a type has no cell.

        It is what ``initial_state`` of :func:`flyxr.simulate` takes, and can be set to such a state.
        """
        state = self._engine.state
        is_present = cell_presence(self._connectome)
        dense = np.full((*state.shape[:2], *is_present.shape), np.nan, np.float32)
        dense[..., is_present] = state
        everything = self._prepare("rest", record="all").labels.drop_vars("luminance").squeeze("time", drop=True)
        return everything.assign(response=(STATE_DIMS, dense))

    @state.setter
    def state(self, state: xr.Dataset | xr.DataArray) -> None:
        self._engine.state = np.asarray(_given_state(self._prepare(state)).values)

    def _prepare(self, initial_state: Any, **options: Any) -> Prepared:
        """Check and resolve a simulation of one frame."""
        options = {**self._options, **options}
        n_samples, dt = options.pop("n_samples"), options.pop("dt")
        columns = hexgrid.n_columns(int(self._connectome.attrs["extent"]))
        time = xr.DataArray([0.0], dims="time", attrs={"step": dt})
        frame = xr.Dataset({"luminance": (RENDERING_DIMS, np.full((n_samples, 1, columns), GREY, np.float32))})
        frame = frame.assign_coords(time=time)
        return prepare(
            frame, self._ensemble, initial_state=initial_state, connectome=self._connectome, stacklevel=4, **options
        )

    def _take_frame(self, luminance: Any) -> NDArray[np.float32]:
        """Convert a frame to an array (sample, column), or raise."""
        n_samples = self._options["n_samples"]
        problems: list[str | Problem] = []
        if isinstance(luminance, xr.Dataset):
            if "luminance" not in luminance:
                raise schema.SchemaError(f"expected a frame with 'luminance', got {sorted(map(str, luminance))}")
            luminance = luminance["luminance"]
        if isinstance(luminance, xr.DataArray):
            if not {"column"} <= set(luminance.dims) <= {"sample", "column"}:
                dims = tuple(map(str, luminance.dims))
                text = f"expected a frame with the dims sample and column, got {dims}"
                raise schema.SchemaError(Problem(text, "take one time with .isel(time=0)"))
            if not self._has_lattice_order(luminance):
                luminance, problems = sort_columns(luminance, self._n_columns)
            luminance = luminance.transpose(..., "column").values
        try:
            frame = np.asarray(luminance, dtype=np.float32)
        except (TypeError, ValueError) as error:
            text = f"expected a frame as numbers (sample, column), got {shorten(luminance)}"
            raise schema.SchemaError(Problem(text, "give it as an array")) from error
        frame = frame[None] if frame.ndim == 1 and n_samples == 1 else frame
        if not problems and frame.shape != (n_samples, self._n_columns):
            extent = self._connectome.attrs["extent"]
            text = f"expected a frame of shape (sample, column) = ({n_samples}, {self._n_columns}), got {frame.shape}"
            hint = f"render it with fx.BoxEye(extent={extent}), and give each of n_samples={n_samples} its own row"
            problems = [Problem(text, hint)]
        raise_problems(schema.SchemaError, "the frame does not fit", problems)
        if not (frame.min() >= 0 and frame.max() <= 1):
            raise_problems(schema.SchemaError, "", schema.luminance_problems(frame, "rendering"))
        return frame

    def _has_lattice_order(self, frame: xr.DataArray) -> bool:
        """Tell whether a labelled frame has all columns of the lattice in its order; quick, for frames that do."""
        return all(name in frame.coords and np.array_equal(frame[name], self._columns[name]) for name in self._columns)

    def _advance(self, frame: NDArray[np.float32]) -> NDArray[np.floating]:
        """Advance the engine; responses (model, sample, present recorded cell)."""
        with threads_of(self._block):
            return self._engine.step(frame)

    def __getstate__(self) -> dict[str, Any]:
        made_from = {"ensemble": self._ensemble, "connectome": self._connectome, **self._options}
        return {"made_from": made_from, "initial": self._initial, "state": self._engine.state, "n_steps": self._n_steps}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__init__(**pickled["made_from"], initial_state="rest")  # type: ignore[misc]
        self._initial, self._engine.state, self._n_steps = pickled["initial"], pickled["state"], pickled["n_steps"]

    def __repr__(self) -> str:
        """Say how many models, samples, types and columns there are, and the time."""
        sizes = ", ".join(f"{dim}: {self._labels.sizes[dim]}" for dim in STATE_DIMS)
        return f"<flyxr.Stepper ({sizes}), dt {self._block.dt:g} s, time {self.time:g} s, {self._block.engine}>"


def _given_state(prepared: Prepared) -> xr.DataArray:
    if prepared.state is None:
        raise InputError(f"expected a state with 'response', got initial_state {prepared.block.start!r}")
    return prepared.state
