"""What a calcium indicator shows: its response to a step and an impulse, laziness, and rejected arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import flyxr as fx
from flyxr import provenance, schema
from flyxr.errors import InputError
from flyxr.training.indicator import calcium_matrix

DT = 0.001


def trace(values: np.ndarray, dt: float = DT) -> xr.DataArray:
    time = xr.Variable("time", np.arange(values.shape[-1]) * dt, {"step": dt})
    return xr.DataArray(values, dims=("sample", "time")[-values.ndim :], coords={"time": time}, name="response")


def test_calcium__follows_a_step_as_the_equation_says() -> None:
    rise, decay = 0.05, 0.2
    seen = fx.tuning.calcium(trace(np.repeat([0.0, 1.0], [1, 999])), rise=rise, decay=decay)
    t = np.arange(999) * DT
    expected = 1 - (decay * np.exp(-t / decay) - rise * np.exp(-t / rise)) / (decay - rise)
    np.testing.assert_allclose(seen.values[1:], expected, atol=0.01)


def test_calcium__peaks_late_after_an_impulse() -> None:
    rise, decay = 0.02, 0.1
    impulse = np.zeros(600)
    impulse[10] = 1
    seen = fx.tuning.calcium(trace(impulse), rise=rise, decay=decay)
    expected = np.log(decay / rise) * rise * decay / (decay - rise)
    assert float(seen.idxmax("time")) - 10 * DT == pytest.approx(expected, abs=2 * DT)
    assert float(seen.sum()) == pytest.approx(1, abs=0.01)


def test_calcium__leaves_a_constant() -> None:
    constant = trace(np.full((2, 50), 3.0))
    xr.testing.assert_allclose(fx.tuning.calcium(constant), constant)


def test_calcium__is_lazy_and_equal_in_chunks() -> None:
    values = trace(np.random.default_rng(0).normal(size=(3, 60)).astype(np.float32), 0.01)
    lazy = fx.tuning.calcium(values.chunk(sample=1, time=20))
    assert lazy.chunks is not None
    assert lazy.dtype == np.float32
    xr.testing.assert_allclose(lazy.compute(), fx.tuning.calcium(values))


def test_calcium__keeps_a_dataset_and_records_its_arguments() -> None:
    responses = trace(np.ones((2, 5)), 0.01).to_dataset().assign(luminance=("sample", [0.5, 0.5]))
    seen = fx.tuning.calcium(responses, rise=0.1, decay=0.3)
    assert set(seen.data_vars) == {"response", "luminance"}
    assert provenance.steps(seen)[-1]["arguments"] == {"rise": 0.1, "decay": 0.3}
    assert "provenance" not in responses.attrs


def test_calcium__equals_that_of_training() -> None:
    values = np.random.default_rng(0).normal(size=(3, 60))
    matrix = calcium_matrix(60, 0.05, 0.2, 0.01).double()
    tensor = torch.as_tensor(values)
    seen = tensor[:, :1] + (tensor - tensor[:, :1]) @ matrix.T
    np.testing.assert_allclose(seen, fx.tuning.calcium(trace(values, 0.01)).values, atol=1e-6)


def test_calcium__rejects_arguments() -> None:
    values = trace(np.ones(5), 0.01)
    with pytest.raises(InputError, match="expected rise below decay, in s, got rise=0.2 and decay=0.1"):
        fx.tuning.calcium(values, rise=0.2, decay=0.1)
    with pytest.raises(InputError, match=r"(?s)rise.*decay"):
        fx.tuning.calcium(values, rise=0, decay=-1)
    with pytest.raises(schema.SchemaError, match="expected responses over time"):
        fx.tuning.calcium(values.isel(time=0))
    with pytest.raises(schema.SchemaError, match="with the variable 'response'"):
        fx.tuning.calcium(values.to_dataset(name="potential"))
