"""The networks of `toy` and the losses in PyTorch, as reference.

Written from the paper's equations, in float64; the random numbers are drawn from the same keys.
"""

from __future__ import annotations

import jax
import numpy as np
import torch

from helpers import toy

SIGMAS = (1.0, 0.9375, 5 / 6, 0.625)


def tensor(array):
    return torch.tensor(np.asarray(array, np.float64))


def weights(module):
    """Dotted path to a tensor that takes a gradient."""
    arrays = toy.to_arrays(module)
    return {path: tensor(array).requires_grad_() for path, array in arrays.items()}


class Video:
    """What videos are made from."""

    def __init__(self, batch, with_trajectory=True):
        self.latents, self.text = tensor(batch.latents), tensor(batch.text)
        self.image = self.latents[:, :1]
        self.trajectory = tensor(batch.trajectory) if with_trajectory else None

    def with_text(self, text):
        """The same videos with one other text for all."""
        other = Video.__new__(Video)
        other.__dict__ = self.__dict__ | {"text": tensor(text).expand_as(self.text)}
        return other


def with_image(latents, image):
    return torch.cat([image, latents[:, 1:]], 1)


def per_frame(sigma, latents):
    """The noise level of each latent frame, `[B, T, 1, 1, 1]`: the image has none."""
    levels = torch.as_tensor(sigma).reshape(-1, 1).expand(latents.shape[:2]).clone()
    levels[:, 0] = 0
    return levels[:, :, None, None, None]


def velocity(dit, adapter, latents, sigma, video):
    """A network's velocity; `sigma` is one number or one a video."""
    latents = with_image(latents, video.image)
    levels = per_frame(sigma, latents)
    mixed = torch.einsum("btijc,ts,cd->bsijd", latents, dit["frames"], dit["channels"])
    hidden = mixed + (video.text.mean(1) @ dit["text"])[:, None, None, None]
    hidden = hidden + levels * dit["time"]
    if adapter is not None:
        hidden = hidden + video.trajectory @ adapter["trajectory"]
        hidden = hidden + latents * levels * adapter["gate"]
    return torch.tanh(hidden)


def logits(discriminator, backbone, latents, sigma, video):
    features = velocity(backbone, None, latents, sigma, video)
    of_video = features * discriminator["video"]
    of_trajectory = features * video.trajectory * discriminator["trajectory"]
    of_image = (video.image * discriminator["image"]).mean((1, 2, 3)).sum(1)
    return (of_video + of_trajectory).mean((1, 2, 3)).sum(1) + of_image


def over(sigma):
    """A number for each video, against its latents."""
    return torch.as_tensor(sigma).reshape(-1, 1, 1, 1, 1)


def predict_x0(dit, adapter, latents, sigma, video):
    return latents - over(sigma) * velocity(dit, adapter, latents, sigma, video)


def add_noise(x0, noise, sigma):
    return (1 - over(sigma)) * x0 + over(sigma) * noise


def error(prediction, target):
    """Mean square over the frames that are predicted."""
    return ((prediction - target)[:, 1:] ** 2).mean()


def noise_of(keys):
    return tensor([np.asarray(jax.random.normal(key, toy.SHAPE)) for key in keys])


def sigmas_of(keys, shift, low=0.0, high=1000.0):
    """Noise levels of training: uniform integers, shifted, clamped."""
    uniform = tensor([int(jax.random.randint(key, (), 0, 1000)) for key in keys]) / 1000
    return (shift * uniform / (1 + (shift - 1) * uniform)).clamp(low / 1000, high / 1000)


def integers_of(keys, count):
    return torch.tensor([int(jax.random.randint(key, (), 0, count)) for key in keys])


def exit_of(keys):
    """The step at which the student's sampler ends, one for the whole batch."""
    return int(jax.random.randint(keys.split(2)[0].shared, (), 0, len(SIGMAS)))


def student_sample(dit, adapter, video, keys):
    """The few-step sampler up to its exit, no gradient before it. `keys`: of the sample."""
    for_noise, for_steps = keys.split(2)
    latents = noise_of(for_noise.videos)
    exit_step = int(jax.random.randint(keys.shared, (), 0, len(SIGMAS)))
    with torch.no_grad():
        for index in range(exit_step):
            fresh = noise_of([jax.random.fold_in(key, index) for key in for_steps.videos])
            x0 = predict_x0(dit, adapter, latents, SIGMAS[index], video)
            latents = add_noise(x0, fresh, SIGMAS[index + 1])
    x0 = predict_x0(dit, adapter, latents, SIGMAS[exit_step], video)
    return with_image(x0, video.image)


def compare(value, gradient, expected, of, tolerance=1e-5):
    """A loss and its gradient against the reference's."""
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=tolerance, atol=tolerance)
    assert gradient.keys() == of.keys()
    for path, actual in gradient.items():
        wanted = of[path].grad.numpy()
        assert np.abs(wanted).max() > 1e-4, path
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(actual / scale, wanted / scale, atol=tolerance, err_msg=path)
