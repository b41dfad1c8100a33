"""VAEs with several stochastic layers: the plain hierarchy, and the ladder of Sønderby et al. (2016)."""

import keras
from keras import ops

from vae_tf import networks, random
from vae_tf.distributions import Normal
from vae_tf.errors import check_choice, check_positive_int, invalid
from vae_tf.models.base import Model
from vae_tf.models.schedule import KLSchedule
from vae_tf.models.two_networks import OUTPUT_BIAS, check_widths
from vae_tf.models.vae import repeated

INFERENCES = ("ladder", "plain")
LEAST = -10.0  # of log σ², in each layer


@keras.saving.register_keras_serializable(package="vae_tf")
class HierarchicalVAE(KLSchedule, Model):
    """A VAE with L stochastic layers, p(x|z₁) p(z₁|z₂) ... p(z_L), each a normal given the one above.

        −ELBO = E_q[−log p(x|z₁)] + Σ_l E_q[log q(z_l|·) − log p(z_l|z_{l+1})]
              = reconstruction_loss + Σ_l kl_layer_l = loss.

    The plain inference goes up, q(z₁|x) q(z₂|z₁) ...; the ladder's goes down, and q(z_l|z_{l+1}, x) is
    the product of p(z_l|z_{l+1}) and of what the encoder says of z_l, weighted by their precisions.
    `encode` gives z₁, from which `decode` makes images; `generate` begins at the top.

    Args:
        latent_dims: the sizes of z₁, z₂, ..., from the image upward; two or more.
        hidden_units: widths of each layer's networks: one sequence for all layers, or a sequence of
            such, one for each.
        inference: "ladder" or "plain".
        kl_warmup_steps: over so many steps the KL's weight rises from 0 to 1; without that the upper
            layers stay unused. The callback `KLWarmup` sets another.
        activation, kernel_initializer, output_bias: as for `VAE`.
        kwargs: `likelihood`, `binarize` and `seed`, as for `Model`.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.

    Example:
        >>> vae = HierarchicalVAE(latent_dims=(8, 4), hidden_units=(32,), seed=0)
        >>> vae.compile()
        >>> history = vae.fit(np.zeros((100, 8, 8), "uint8"), verbose=0)
        >>> vae.generate(num=4, seed=0).shape
        (4, 8, 8)

    Source: Sønderby et al. (2016), "Ladder Variational Autoencoders", equations 6 to 12; Burda et al.
    (2016), section 2, for the plain hierarchy.
    """

    def __init__(
        self,
        latent_dims=(16, 8),
        hidden_units=(256, 128),
        inference="ladder",
        kl_warmup_steps=2000,
        activation="relu",
        kernel_initializer="he_uniform",
        output_bias="mean",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.latent_dims = check_widths("latent_dims", latent_dims)
        if len(self.latent_dims) < 2:
            hint = "One layer is a VAE(latent_dim)."
            raise invalid("latent_dims", "two sizes or more", self.latent_dims, hint)
        self.hidden_units = _widths_of_layers(hidden_units, len(self.latent_dims))
        self.inference = check_choice("inference", inference, INFERENCES)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.output_bias = check_choice("output_bias", output_bias, OUTPUT_BIAS)
        steps = check_positive_int("kl_warmup_steps", kl_warmup_steps, minimum=0)
        self.given_warmup = steps
        self.add_schedule(steps=steps)

    @property
    def latent_dim(self):
        """The size of z₁, the code."""
        return self.latent_dims[0]

    def build(self, input_shape):
        shape, sizes = tuple(input_shape[1:]), self.latent_dims
        ladder, options = self.inference == "ladder", (self.activation, self.kernel_initializer)
        seeds = iter(random.child_seeds(self.weight_seeds[0], 2 * len(sizes)))
        below, self.encoders, self.downs = shape, [], []
        for number, (size, widths) in enumerate(zip(sizes, self.hidden_units, strict=True), 1):
            name = f"encoder_{number}"
            encoder = networks.dense_encoder(below, size, widths, *options, next(seeds), name)
            hidden = encoder.layers[len(widths) + 1].output  # the ladder's next layer stands on it
            outputs = [hidden, *encoder.outputs] if ladder else encoder.outputs
            self.encoders.append(keras.Model(encoder.input, outputs, name=name))
            below = hidden.shape[1:] if ladder else (size,)
        for number, widths in enumerate(self.hidden_units[1:], 1):
            above, size = (sizes[number],), sizes[number - 1]
            down = networks.dense_encoder(
                above, size, widths[::-1], self.activation, seed=next(seeds), name=f"down_{number}"
            )
            head = down.get_layer(f"down_{number}_z_mean_and_log_var")
            head.kernel.assign(ops.zeros_like(head.kernel))  # p(z_l|z_{l+1}) begins as N(0, I)
            self.downs.append(down)
        pixels, widths = self.likelihood.parameter_shape(shape), self.hidden_units[0][::-1]
        self.decoder = networks.dense_decoder(
            sizes[0], pixels, widths, self.activation, seed=next(seeds)
        )
        super().build(input_shape)

    def begin(self, x):
        if self.output_bias == "mean":
            networks.begin_at_mean(self.decoder, self.likelihood, x)

    # The hierarchy.

    def layers_of(self, x, draw):
        """`(q, p, z, log q(z))` of each layer, from the bottom.

        Args:
            x: images, `(1, batch, ...)`.
            draw: from q, a `Normal`, to z and log q(z).
        """
        return (self._ladder if self.inference == "ladder" else self._plain)(x, draw)

    def _plain(self, x, draw):
        """q(z₁|x) q(z₂|z₁) ..., drawn upward."""
        found, below = [], x
        for encoder in self.encoders:
            q = _normal(*_at(encoder, below))
            below, log_q = draw(q)
            found.append((q, below, log_q))
        above = [z for _, z, _ in found[1:]]
        priors = [_normal(*_at(down, z)) for down, z in zip(self.downs, above, strict=True)]
        priors.append(Normal(0.0, 0.0))
        return [(q, p, z, log_q) for (q, z, log_q), p in zip(found, priors, strict=True)]

    def _ladder(self, x, draw):
        """q(z_L|x) ... q(z₁|z₂, x), drawn downward."""
        seen, below = [], x
        for encoder in self.encoders:
            below, *parameters = _at(encoder, below)
            seen.append(_normal(*parameters))
        q = seen[-1]
        found = [(q, Normal(0.0, 0.0), *draw(q))]
        for of_x, down in zip(seen[-2::-1], self.downs[::-1], strict=True):
            p = _normal(*_at(down, found[-1][2]))
            q = merged(of_x, p)
            found.append((q, p, *draw(q)))
        return found[::-1]

    def _draws(self, num_samples):
        """Draws `(num_samples, batch, dim)`; the parameters of q have a first axis of that length, or of 1."""

        def draw(q):
            return q.at(self.noise.normal(q.mean()[0], num_samples))

        return draw

    # What a model gives.

    def encode(self, x):
        """Of q(z₁|x), with the means of the layers above: `(z_mean, z_log_var)`."""
        q, *_ = self.layers_of(x[None], lambda q: (q.mean(), None))[0]
        return q.mean()[0], q.log_var[0]

    def decode(self, z):
        """p(x|z₁): its parameters, for z₁ `(batch, latent_dims[0])`."""
        return self.decoder(z)

    def sample_prior(self, num):
        """z₁ from z_L ~ N(0, I) downward, `(num, latent_dims[0])`."""
        z = self.noise.normal((num, self.latent_dims[-1]))
        for down in self.downs[::-1]:
            z = _normal(*down(z)).sample(self.noise)
        return z

    def terms(self, x, training=False):
        """−ELBO and its terms. A KL has its closed form where p is known before z is drawn."""
        found = self.layers_of(x[None], self._draws(1))
        closed = [self.inference == "ladder"] * (len(found) - 1) + [True]
        kls = [
            ops.sum(q.kl(p), axis=-1)[0] if exact else (log_q - p.log_prob(z))[0]
            for exact, (q, p, z, log_q) in zip(closed, found, strict=True)
        ]
        reconstruction = -self.likelihood.log_prob(self.decode(found[0][2][0]), x)
        kl = sum(kls)
        return {
            "loss": reconstruction + kl,
            "reconstruction_loss": reconstruction,
            "kl_loss": kl,
            **{f"kl_layer_{number}": kl for number, kl in enumerate(kls, start=1)},
        }

    def objective(self, means):
        """Reconstruction + β Σ_l KL_l; the `loss` that is shown has β = 1."""
        return means["reconstruction_loss"] + self.beta * means["kl_loss"]

    def log_weights(self, x, num_samples):
        """log p(x, z) − log q(z|x) for draws of all layers: `(num_samples, batch)`, in nats.

        Source: Burda et al. (2016), equation 8.
        """
        num_samples = check_positive_int("num_samples", num_samples)
        found = self.layers_of(x[None], self._draws(num_samples))
        codes = ops.reshape(found[0][2], (-1, self.latent_dim))
        log_x = self.likelihood.log_prob(self.decode(codes), repeated(x, num_samples))
        log_ratio = sum(p.log_prob(z) - log_q for _, p, z, log_q in found)
        return ops.reshape(log_x, ops.shape(log_ratio)) + log_ratio

    def get_config(self):
        return {
            **super().get_config(),
            "latent_dims": list(self.latent_dims),
            "hidden_units": [list(widths) for widths in self.hidden_units],
            "inference": self.inference,
            "kl_warmup_steps": self.given_warmup,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "output_bias": self.output_bias,
        }


def _normal(mean, log_var):
    """N(μ, diag σ²), whose log σ² bends smoothly into its least value.

    A layer that only hands on what is above it has σ → 0 in training. Then z, in float32, is rounded by
    more than σ, and log p(z) is wrong by nats.
    """
    log_var = ops.cast(log_var, "float32")
    return Normal(mean, LEAST + ops.softplus(log_var - LEAST))


def merged(one, other):
    """The normalised product of two normals: precisions add, and means are weighted by them.

    Source: Sønderby et al. (2016), equations 8 to 10.
    """
    log_precision = ops.logaddexp(-one.log_var, -other.log_var)
    weight = ops.sigmoid(other.log_var - one.log_var)  # of `one`
    return Normal(weight * one.mean() + (1 - weight) * other.mean(), -log_precision)


def _at(network, x):
    """A network's outputs for x `(samples, batch, ...)`, with the same two axes in front."""
    samples, batch = ops.shape(x)[:2]
    outputs = network(ops.reshape(x, (-1, *x.shape[2:])))
    return [ops.reshape(each, (samples, batch, *each.shape[1:])) for each in outputs]


def _widths_of_layers(hidden_units, num_layers):
    """Widths for each stochastic layer, from one sequence for all of them or a sequence for each."""
    several = hasattr(hidden_units, "__iter__") and any(
        hasattr(w, "__iter__") for w in hidden_units
    )
    if not several:
        return (check_widths("hidden_units", hidden_units),) * num_layers
    if len(hidden_units) != num_layers:
        expected = f"widths for each of {num_layers} stochastic layers"
        raise invalid("hidden_units", expected, f"hidden_units={hidden_units!r}")
    return tuple(check_widths("hidden_units", widths) for widths in hidden_units)
