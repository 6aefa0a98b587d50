"""
What follows a series
=====================

A line that is found in closed form, and a network of state spaces on the grid of variates and times that
begins at it. The line knows of each variate its own past; the network may see that one follows another.
"""

import os
from datetime import datetime, timedelta

import torch
from matplotlib.figure import Figure

from learnsolve.datasets.series import Series, read_series
from learnsolve.forecasting import ChimeraOptions, errors, fit_ridge, repeated, train
from learnsolve.problems.series import coupled_series
from learnsolve.training import FitOptions

# %%
# A made series has trends, seasons, and variates that bend what the one before did some times ago. A file in
# the format of ETT takes its place if LEARNSOLVE_ETTH1 names one.

path = os.environ.get("LEARNSOLVE_ETTH1")
if path:
    series, look_back, horizon, patch = read_series(path), 336, 96, 24
    parts = series.months()
else:
    values = coupled_series(6000, 3, noise=0.1)
    series = Series(values, ("first", "second", "third"), datetime(2024, 1, 1), timedelta(hours=1))
    look_back, horizon, patch = 48, 6, 12
    parts = series.fractions(0.05, 0.15)

# %%
# The scale is that of the part that is learned from, penalty and weights are chosen by the next one, and the
# last one judges.

values = torch.tensor(series.standardised(parts.train).values, dtype=torch.float32)
line = fit_ridge(values, look_back, horizon, parts.train, parts.valid)
torch.manual_seed(0)
network = ChimeraOptions(values.shape[1], look_back, horizon, patch=patch, dropout=0.0).build()
network.begin(line)
options = FitOptions(steps=200, learning_rate=1e-2, warmup=15, schedule="cosine", validate_every=50)
result = train(network, values, look_back, horizon, parts.train, parts.valid, options)

forecasts = {"last value": lambda x: repeated(x, horizon), "line": line, "Chimera": network.eval()}
for name, forecast in forecasts.items():
    found = errors(forecast, values, look_back, horizon, parts.test, chunk=64)
    print(f"{name}: MSE {found.mse:.4f}, MAE {found.mae:.4f}")

# %%
# A window of the part that judges, which none of them has seen.

begin = parts.test[0] + 100
window = values[begin - look_back : begin].mT[None]
figure = Figure(figsize=(7, 5), layout="constrained")
for number, ax in enumerate(figure.subplots(3, sharex=True)):
    ax.plot(range(-48, horizon), values[begin - 48 : begin + horizon, number], color="0.6", label="series")
    with torch.no_grad():
        for name, forecast in list(forecasts.items())[1:]:
            ax.plot(range(horizon), forecast(window)[0, number], label=name)
    ax.set_ylabel(series.names[number])
ax.legend()
ax.set_xlabel("times from the forecast on")
figure.savefig("forecast_ett.png", dpi=100)
