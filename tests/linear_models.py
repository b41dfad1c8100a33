"""Linear models with Gaussian likelihoods, which have all in closed form.

For a decoder z → zW + b a VAE has p(x) = N(b, WᵀW + σ² I) and a Gaussian posterior of precision
I + WWᵀ/σ².
"""

import math
import types

import numpy as np
from scipy import stats

from vae_tf import VAE, Gaussian, Model
from vae_tf.distributions import Normal

SIGMA, LATENT, PIXELS = 0.5, 2, 5
POINTS = np.random.default_rng(3).normal(1.0, 1.5, (23, PIXELS))


def linear_vae(matched, model_class=VAE, **kwargs):
    """Weights by hand: q(z|x) is the exact posterior, or is shifted, wider and uncorrelated."""
    random = np.random.default_rng(0)
    likelihood = Gaussian(sigma=SIGMA)
    model = model_class(LATENT, hidden_units=(), likelihood=likelihood, seed=0, **kwargs)
    model.build((None, PIXELS))
    w, b = random.normal(0, 0.6, (LATENT, PIXELS)), random.normal(size=PIXELS)
    if matched:
        w = np.linalg.qr(w.T)[0].T * [[1.2], [0.6]]
    cov = np.linalg.inv(np.eye(LATENT) + w @ w.T / SIGMA**2)
    to_mean, to_log_var = w.T @ cov / SIGMA**2, np.zeros((PIXELS, LATENT))
    if not matched:
        to_mean, to_log_var = (a + random.normal(0, 0.03, a.shape) for a in (to_mean, to_log_var))
    bias = np.append(-b @ to_mean, np.log(np.diag(cov)) + (0 if matched else 0.3))
    model.decoder.get_layer("logits").set_weights([w, b])
    heads = model.encoder.get_layer("z_mean_and_log_var")
    heads.set_weights([np.concatenate([to_mean, to_log_var], axis=1), bias])
    return model


def closed_form(model, x):
    """Of a linear model, in float64, one value an image.

    `gap` is KL(q(z|x) ‖ p(z|x)); `spread`, sd of log p(x|z) under q: of a quadratic form in z.
    """
    w, b = (np.float64(a) for a in model.decoder.get_layer("logits").get_weights())
    mean, log_var = (np.float64(a) for a in model.encode(x))
    var, square = np.exp(log_var), SIGMA**2
    log_p = stats.multivariate_normal(b, w.T @ w + square * np.eye(PIXELS)).logpdf(x)
    residual, inner = x - b - mean @ w, w @ w.T
    distance = (residual**2).sum(1) + var @ np.diag(inner)
    reconstruction = -0.5 * (PIXELS * np.log(2 * np.pi * square) + distance / square)
    kl = 0.5 * (var + mean**2 - 1 - log_var).sum(1)
    precision = np.eye(LATENT) + inner / square
    off = mean - (x - b) @ w.T @ np.linalg.inv(precision) / square
    gap = np.einsum("ni,ij,nj->n", off, precision, off) + var @ np.diag(precision)
    gap = 0.5 * (gap - LATENT - np.linalg.slogdet(precision)[1] - log_var.sum(1))
    spread = ((residual @ w.T) ** 2 * var).sum(1)
    spread = np.sqrt(spread + 0.5 * np.einsum("nj,nk,jk->n", var, var, inner**2)) / square
    terms = {"elbo": reconstruction - kl, "reconstruction_loss": -reconstruction, "kl_loss": kl}
    return types.SimpleNamespace(log_p=log_p, gap=gap, spread=spread, terms=terms, **terms)


class TwoLayers(Model):
    """z₂ ~ N(0, 1), z₁ ~ N(z₂A, ½² I), x ~ N(z₁W + b, σ² I); q(z₁|x) and q(z₂|z₁) are not exact."""

    latent_dim = LATENT

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.likelihood = Gaussian(sigma=SIGMA)
        random = np.random.default_rng(1)
        self.a, self.b = np.array([[0.9, 0.0]], "float32"), random.normal(size=5).astype("float32")
        rows = np.linalg.qr(random.normal(size=(5, 2)))[0].T  # orthogonal: `cov` is diagonal
        self.w = np.float32([[1.2], [0.6]] * rows)
        prior = self.a.T @ self.a + 0.25 * np.eye(2)
        cov = np.linalg.inv(np.linalg.inv(prior) + self.w @ self.w.T / SIGMA**2)
        self.up = np.float32(self.w.T @ cov / SIGMA**2)
        self.log_vars = np.float32(np.log(np.diag(cov)) + 0.3), math.log(0.6)

    def encode(self, x):
        return (x - self.b) @ self.up

    def decode(self, z):
        return z @ self.w + self.b

    def log_weights(self, x, num_samples):
        q1 = Normal(self.encode(x), self.log_vars[0])
        z1, log_q1 = q1.sample_with_log_prob(self.noise, num_samples)
        q2 = Normal(0.5 * z1 @ self.a.T, self.log_vars[1])
        noise = self.noise.normal((x.shape[0], 1), num_samples)
        z2 = q2.mean() + math.exp(0.5 * self.log_vars[1]) * noise
        log_p = Normal(z2 @ self.a, 2 * math.log(0.5)).log_prob(z1) + Normal(0.0, 0.0).log_prob(z2)
        pixels = Normal(self.decode(z1), 2 * math.log(SIGMA)).log_prob(x)
        return pixels + log_p - log_q1 - q2.log_prob(z2)

    def terms(self, x, training=False):
        return {"loss": -self.log_weights(x, 1)[0]}

    def log_prob(self, x):
        """log p(x), exactly."""
        cov = self.w.T @ (self.a.T @ self.a + 0.25 * np.eye(2)) @ self.w + SIGMA**2 * np.eye(5)
        return stats.multivariate_normal(self.b, cov).logpdf(x)
