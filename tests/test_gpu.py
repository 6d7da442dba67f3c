"""What only a GPU shows: that it computes what a CPU does, and cuDNN's attention what XLA's does.

JAX_PLATFORMS=cuda,cpu XLA_FLAGS= python -m pytest tests/test_gpu.py
"""

import jax
import numpy as np
import pytest
import tiny
import zoo

from mmt_jax.objectives import losses

pytestmark = pytest.mark.gpu
SIZES = {  # cuDNN takes heads of a multiple of 8
    "mmt": {"width": 32, "heads": 2, "head_dim": 16},
    "two_tower": {"width": 32, "heads": 2, "head_dim": 16},
    "bert": {"width": 32, "heads": 2, "head_dim": 16},
    "lxmert": {"width": 32, "heads": 2},
    "bridgetower": {"width": 32, "text_width": 32, "image_width": 32, "image_heads": 2},
    "tern": {"width": 32, "text_width": 32, "image_width": 32, "image_heads": 2},
    "roberta": {"width": 32, "heads": 2},
    "clip": {"text_width": 32, "text_heads": 2, "image_width": 32, "image_heads": 2},
}


def gradient(family, device, **run):
    """The loss of a batch with padding and its gradient; captions and photos are of odd lengths."""
    model = zoo.build(family, depth=2, model=SIZES[family], **run)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        params = model.init(jax.random.key(0))
        batch = zoo.batch(model, words=(1, 6, 2, 5, 6, 1, 3, 2))

        def found(params):
            return losses.compute(model, params, batch, key=jax.random.key(4))[0]

        return jax.device_get(tiny.compiled(jax.value_and_grad(found), params)(params))


def apart(found, wanted):
    """The distance of two gradients, as a share of the second's length."""
    both = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    gap = sum(np.square(x - y).sum() for x, y in both)
    return np.sqrt(gap / sum(np.square(y).sum() for _, y in both))


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_gpu_computes_what_a_cpu_does(family):
    loss, grads = gradient(family, jax.devices("gpu")[0])
    wanted, expected = gradient(family, jax.devices("cpu")[0])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert apart(grads, expected) < 1e-4


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_cudnn_attends_as_xla_does(family):
    gpu = jax.devices("gpu")[0]
    loss, grads = gradient(family, gpu, dtype="bfloat16", attention="cudnn")
    wanted, expected = gradient(family, gpu, dtype="bfloat16", attention="xla")
    exact, _ = gradient(family, gpu)
    np.testing.assert_allclose(loss, wanted, rtol=5e-3)
    np.testing.assert_allclose(loss, exact, rtol=5e-3)
    assert apart(grads, expected) < 0.05
