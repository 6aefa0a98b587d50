"""
Ratings from few ratings
========================

Two thousand users have rated some of eight hundred films, with noise. What would they say of the others?
"""

import numpy as np

import learnsolve

rng = np.random.default_rng(0)
users, films, tastes = 2000, 800, 4
truth = 3.5 + 0.5 * rng.standard_normal((users, tastes)) @ rng.standard_normal((tastes, films))
truth += 0.5 * rng.standard_normal(films)
rows, cols = np.nonzero(rng.random(truth.shape) < 0.06)
ratings = truth[rows, cols] + 0.5 * rng.standard_normal(rows.size)
test = rng.random(rows.size) < 0.1

# %%
# A mean, biases and factors. Without a penalty these fit the noise, with too large a one they fit nothing.
known = (rows[~test], cols[~test], ratings[~test])
for penalty in (0.0, 0.02, 1.0):
    res = learnsolve.complete(known, 12, shape=truth.shape, bias=True, regularization=penalty, rtol=1e-4)
    error = np.sqrt(np.mean((res.predict(rows[test], cols[test]) - ratings[test]) ** 2))
    print(f"penalty {penalty:4.2f}: RMSE {error:.3f} on unseen ratings (noise: 0.5)  {res}")

# %%
# The five films to show to user 7, of those that were not rated.
res = learnsolve.complete(known, 12, shape=truth.shape, bias=True, regularization=0.02, rtol=1e-4)
best, expected = res.top(7, 5, exclude=cols[rows == 7])
print("films", best, "with", expected.round(2), "and in truth", truth[7, best].round(2))
