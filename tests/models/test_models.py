import pytest
import torch
import torch.nn.functional as F

from bsk.errors import UsageError
from bsk.models.modes import PRECISIONS, eval_mode, in_precision
from bsk.models.registry import MODELS, Normalised, build, network


def parameters(name: str, classes: int = 10, size: int = 32) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in network(name, classes, 3, size).parameters())


def test_parameter_counts_of_the_paper_s_models() -> None:
    """Hand-worked, or as published: kuangliu's ResNet-18 has 11,173,962; WRN-34-10 46,160,474."""
    assert parameters("resnet18") == 11_173_962
    assert parameters("wrn-34-10") == 46_160_474
    # torchvision's ResNet-50 has 25,557,032; its stem is 7x7, its linear layer has 1,000 classes
    assert parameters("resnet50", classes=200) == 25_557_032 - 64 * 3 * (49 - 9) - 800 * 2049
    assert parameters("resnet18", classes=100) - parameters("resnet18") == 90 * 513


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [("resnet18-4", 32, [32, 32, 16, 8, 4]), ("resnet50-4", 64, [64, 32, 16, 8, 4]), ("wrn-10-1", 32, [32, 32, 16, 8])],
)
def test_stages_have_the_sides_of_the_paper_s_code(name: str, size: int, sides: list[int]) -> None:
    model = network(name, 10, 3, size)
    seen = [size]
    for block in model.blocks:
        block.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
    model(torch.rand(2, 3, size, size))
    assert sorted(set(seen), reverse=True) == sorted(set(sides), reverse=True)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_normalisation_keeps_layout_and_bits(layout: torch.memory_format) -> None:
    model = Normalised(torch.nn.Identity(), [0.1, 0.2, 0.4], [0.5, 0.3, 0.7])
    x = torch.rand(4, 3, 5, 6).contiguous(memory_format=layout).requires_grad_()
    found = model(x)
    assert torch.equal(found, (x - model.mean) / model.std) and found.is_contiguous(memory_format=layout)
    weights = torch.rand(4, 3, 5, 6)
    assert torch.equal(torch.autograd.grad((found * weights).sum(), x)[0], weights / model.std)
    assert model(x[:0]).shape == (0, 3, 5, 6) and model(x.detach().double()).dtype == torch.float64


@pytest.mark.parametrize("name", [*MODELS, "wrn-16-2", "cnn-8", "resnet50-8"])
def test_every_model_has_one_logit_per_class(name: str) -> None:
    with torch.device("meta"):
        model = network(name, 7, 1 if name.startswith("cnn") else 3, 64 if "50" in name else 32)
        x = torch.empty(2, 1 if name.startswith("cnn") else 3, *[64 if "50" in name else 32] * 2)
        assert model(x).shape == (2, 7)


def test_the_linear_layer_of_the_small_network_fits_images_of_any_sides() -> None:
    for size, places in (((8, 12), 2 * 3), ((12, 8), 3 * 2), ((9, 5), 3 * 2), ((8, 8), 4), (8, 4)):
        assert network("cnn-4", 10, 3, size)[-1].in_features == 16 * places


@pytest.mark.parametrize("name", ["resnet19", "resnet18-0", "wrn-33-10", "wrn-34", "Resnet18", "resnet18-16-4", ""])
def test_unknown_models_are_named(name: str) -> None:
    with pytest.raises(UsageError, match="--model"):
        network(name, 10, 3, 32)


def test_normalisation_is_the_first_layer_and_travels_with_the_weights() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    model = build("resnet18-4", classes=3, channels=3, size=8, mean=mean, std=std, seed=0).eval()
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(x), model.network(by_hand))
    other = build("resnet18-4", classes=3, channels=3, size=8, mean=[0.0] * 3, std=[1.0] * 3, seed=1).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_the_seed_alone_decides_the_weights_and_the_global_state_stays() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = build("cnn", classes=10, channels=1, size=8, mean=[0.0], std=[1.0], seed=seed)
        return torch.cat([p.reshape(-1) for p in model.parameters()])

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = weights(1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_a_residual_block_by_hand() -> None:
    block = network("resnet18-2", 10, 3, 8).blocks[2].eval()  # stride 2, with a 1x1 shortcut
    x = torch.rand(2, 2, 8, 8)
    conv1, norm1, _, conv2, norm2 = block.branch
    hidden = F.relu(norm1(F.conv2d(x, conv1.weight, stride=2, padding=1)))
    branch = norm2(F.conv2d(hidden, conv2.weight, padding=1))
    shortcut = block.shortcut[1](F.conv2d(x, block.shortcut[0].weight, stride=2))
    torch.testing.assert_close(block(x), F.relu(branch + shortcut))


def test_eval_mode_gives_each_module_its_own_mode_back() -> None:
    model = network("resnet18-2", 10, 3, 8).train()
    model.blocks[0].eval()
    with eval_mode(model):
        assert not any(m.training for m in model.modules())
    assert model.training and not any(m.training for m in model.blocks[0].modules()) and model.blocks[1].training


def test_a_pass_in_bf16_has_the_weights_of_its_time_also_within_a_region_of_the_caller() -> None:
    """A step between two passes, such as adversarial weight perturbation, changes the second."""
    layer, x = torch.nn.Linear(4, 3), torch.ones(2, 4)
    model = in_precision(layer, "bf16")
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)  # autocast keeps these weights
        before = model(x)
        with torch.no_grad():
            layer.weight.add_(1.0)
        after = model(x)
    torch.testing.assert_close(after, before + 4, atol=0.1, rtol=0.0)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_logits_of_half_precision_passes_are_fp32_so_that_losses_keep_their_small_terms(precision: str) -> None:
    """As torch's own functions compute the KL divergence; of half-precision logits it would often be negative."""
    layer, x = torch.nn.Linear(8, 10), torch.randn(200, 8)
    low = in_precision(layer, precision)
    clean, other = low(x), low(x + 0.1 * torch.randn(200, 8))
    assert clean.dtype == torch.float32 and torch.equal(clean, clean.to(PRECISIONS[precision]).float())
    found = F.kl_div(other.log_softmax(1), clean.softmax(1), reduction="none").sum(1)
    exact = F.kl_div(other.double().log_softmax(1), clean.double().softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=1e-3)
    assert in_precision(layer.double(), precision)(x.double()).dtype == torch.float64


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_logits_are_fp32_also_where_the_network_has_autocast_of_its_own(precision: str) -> None:
    layer, x = torch.nn.Linear(8, 10), torch.randn(4, 8)

    def own(z: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layer(z)

    assert own(x).dtype == torch.bfloat16 and torch.equal(in_precision(own, precision)(x), own(x).float())
