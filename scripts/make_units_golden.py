#!/usr/bin/env python3
"""Writes tests/golden/units_{genie,metaaug,brecq}.safetensors: whole networks of several units, quantized by published code.

    pip install torch numpy safetensors higher
    scripts/make_units_golden.py GENIE METAAUG BRECQ

GENIE, METAAUG and BRECQ are clones of github.com/SamsungLabs/Genie, cuong-pv/MetaAug-PTQ and yhhhli/BRECQ. Their functions run as they
are, on made-up networks of their own layers and blocks, on one thread in float32, but for this: everything is on the CPU; `clamp` passes
gradients on its closed range, as in the PyTorch that the published numbers were made with; and mini-batches and masks are those of
crates/ptq/src/rng.rs, so that the whole loop over the units can be replayed. MetaAug's transform network is the identity and is not trained: what is
compared is where the two networks of that code start from and what it reconstructs.
"""
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES, BATCH, ITERATIONS, CLASSES = 32, 8, 12, 5
MASK = (1 << 64) - 1
BATCHES, DROP_INPUT, DROP_INSIDE = 2, 3, 4


class Stream:
    """`Stream` of crates/ptq/src/rng.rs."""

    def __init__(self, key):
        self.key = key

    @staticmethod
    def of_seed(seed):
        return Stream(mixed(seed ^ 0x6D65746161756721))

    def at(self, index):
        return Stream(mixed((((self.key + 0x9E3779B97F4A7C15) * 0xD6E8FEB86659FD93) & MASK) ^ mixed(index)))

    def named(self, name):
        h = 0xCBF29CE484222325
        for byte in name.encode() + b"\xff":
            h = ((h ^ byte) * 0x100000001B3) & MASK
        return self.at(h)

    def permutation(self, n):
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = (self.at(i).key * (i + 1)) >> 64
            order[i], order[j] = order[j], order[i]
        return torch.tensor(order)

    def half(self, shape):
        """0 for about half of the elements, those that are quantized; 0.75 for the others."""
        n = int(np.prod(shape))
        with np.errstate(over="ignore"):
            low, high = np.uint32(self.key & 0xFFFFFFFF), np.uint32(self.key >> 32)
            x = np.arange(n, dtype=np.uint32) ^ low
            x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
            x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
            x = (x ^ (x >> np.uint32(16))) + high
            x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
            x ^= x >> np.uint32(15)
        return torch.from_numpy(np.where(x < 1 << 31, 0.0, 0.75).astype(np.float32)).reshape(shape)


def mixed(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward((x >= low) & (x <= high))
        return x.clip(low, high)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None


class Draws:
    """What the published code draws instead of its own: `unit` is at hand, at step `t` of its training, computing `layer`."""

    def __init__(self):
        self.stream = Stream.of_seed(0)
        self.unit, self.t, self.layer, self.epoch = None, 0, None, 0
        # Unit, and node and slot in it, of the quantizer in front of each layer.
        self.places = {}

    def start(self, unit):
        self.unit, self.t, self.layer, self.epoch = unit, 0, None, 0

    def rand_like(self, x):
        if self.layer is None:
            self.t += 1
            return self.stream.named(self.unit).at(DROP_INPUT).at(self.t).half(x.shape)
        unit, node, slot = self.places[self.layer]
        t = self.t if unit == self.unit else 0
        return self.stream.named(unit).at(DROP_INSIDE).at(t).at(node).at(slot + 1).half(x.shape)

    def randperm(self, n):
        self.epoch += 1
        return self.stream.named(self.unit).at(BATCHES).at(self.epoch - 1).permutation(n)

    def wrap_layers(self, model, layer_class):
        for name, module in model.named_modules():
            if isinstance(module, layer_class):
                module.forward = self.noticed(name, module.forward)

    def noticed(self, name, forward):
        def call(x):
            self.layer = name
            y = forward(x)
            self.layer = None
            return y

        return call


def made_up(model, seed):
    """Weights and statistics of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda tensor, low, high: tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.6, 1.6)
            uniform(module.bias, -0.3, 0.6)
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.4, 1.6)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            limit = (6.0 / module.weight[0].numel()) ** 0.5
            uniform(module.weight, -limit, limit)
            if module.bias is not None:
                uniform(module.bias, -0.3, 0.3)
    return model.eval()


def images():
    return torch.randn((IMAGES, 3, 8, 8), generator=torch.Generator().manual_seed(7))


class Mobile(nn.Module):
    """A stem, two inverted residuals, a last convolution, a classifier."""

    def __init__(self, block):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.block1 = block(8, 8, 2, 2)
        self.block2 = block(8, 8, 1, 2)
        self.last = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.fc(self.last(self.block2(self.block1(self.stem(x)))).mean([2, 3]))


UNIT_OF = {"stem.0": "stem", "block1": "block1", "block2": "block2", "last.0": "last", "fc": "classifier"}
PLACES = {"last.0": ("last", 0, 0), "fc": ("classifier", 0, 0), "block2.identity": ("block2", 5, 1)}
for block in ["block1", "block2"]:
    PLACES.update({f"{block}.conv.{conv}": (block, node, 0) for conv, node in [(0, 0), (3, 2), (6, 4)]})
QUANTIZED = (nn.Conv2d, nn.Linear, nn.Identity)


def quantizers(model, layer_class, tensors, prefix):
    for name, module in model.named_modules():
        if isinstance(module, layer_class):
            if module.weight_quantizer is not None:
                tensors[f"{prefix}.{name}.scale"] = module.weight_quantizer.scale
                tensors[f"{prefix}.{name}.bit_logit"] = module.weight_quantizer.bit_logit
            if module.activation_quantizer is not None:
                tensors[f"{prefix}.{name}.act"] = module.activation_quantizer.scale


def genie(path):
    sys.path.insert(0, path)
    import quantizer
    import reconstruct
    from models.mobilenetv2 import InvertedResidual

    draws, tensors, x = Draws(), {}, images()
    draws.places = PLACES
    teacher = made_up(Mobile(InvertedResidual), 1)
    tensors.update({f"fp.{name}": value.clone() for name, value in teacher.state_dict().items() if value.is_floating_point()})
    student = reconstruct.quantize_model(teacher, 2, 2, QUANTIZED)
    draws.wrap_layers(student, reconstruct.QuantizableLayer)
    names = {module: name for name, module in student.named_modules()}
    own = reconstruct.reconstruct_block

    def reconstruct_block(block, *args, **kwargs):
        draws.start(UNIT_OF[names[block]])
        own(block, *args, **kwargs)

    reconstruct.reconstruct_block = reconstruct_block
    torch.rand_like, torch.randperm = draws.rand_like, draws.randperm
    units = ("InvertedResidual", "Linear", "Conv2d")
    reconstruct.reconstruct(teacher, student, x, units, iterations=ITERATIONS, batch_size=IMAGES // BATCH)
    with torch.no_grad():
        tensors.update({"images": x, "logits": student(x)})
    quantizers(student, reconstruct.QuantizableLayer, tensors, "end")
    return tensors


def metaaug(path):
    sys.path.insert(0, path)
    import reconstruct_block
    import train_meta
    from models.mobilenetv2 import InvertedResidual

    draws, tensors, x = Draws(), {}, images()
    draws.places = PLACES
    teacher = made_up(Mobile(InvertedResidual), 1)
    tensors.update({f"fp.{name}": value.clone() for name, value in teacher.state_dict().items() if value.is_floating_point()})
    models, own_quantize, own_find = [], train_meta.quantize_model, train_meta.find_unquantized_module
    names = {}

    def quantize_model(*args):
        model = own_quantize(*args)
        draws.wrap_layers(model, reconstruct_block.QuantizableLayer)
        names.update({module: name for name, module in model.named_modules()})
        models.append(model)
        return model

    def find_unquantized_module(model, *args):
        if "start.fc.act" not in tensors:
            layers = {}
            quantizers(model, reconstruct_block.QuantizableLayer, layers, "start")
            tensors.update({name: value.detach().clone() for name, value in layers.items() if name.endswith("act")})
        return own_find(model, *args)

    own = train_meta.reconstruct_block

    def reconstruct(block, *args, **kwargs):
        draws.start(UNIT_OF[names[block]])
        own(block, *args, **kwargs)

    train_meta.quantize_model, train_meta.find_unquantized_module = quantize_model, find_unquantized_module
    train_meta.reconstruct_block = reconstruct
    train_meta.evaluate_train = train_meta.evaluate_classifier = lambda *args: 0.0
    train_meta.reconstruct_unit = ("InvertedResidual", "Linear", "Conv2d")
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    torch.optim.lr_scheduler.ReduceLROnPlateau = lambda *args, verbose=None, **kwargs: plateau(*args, **kwargs)
    torch.rand_like, torch.randperm = draws.rand_like, draws.randperm

    class Unchanged(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return x

    loader = [(x, torch.zeros(IMAGES, dtype=torch.int64))]
    # The number of rows of its permutations: a 32nd of what it takes for the number of images.
    train_meta.train_meta(
        Unchanged(), teacher, loader, loader, None, bit_w=2, bit_a=2, iterations=ITERATIONS, iterations_meta=0,
        num_samples=32 * IMAGES // BATCH,
    )
    student, final = models
    with torch.no_grad():
        tensors.update({"images": x, "logits": student(x)})
    quantizers(final, reconstruct_block.QuantizableLayer, tensors, "end")
    return tensors


def brecq(path):
    sys.path.insert(0, path)
    import models.mnasnet
    import models.regnet
    import quant

    models.mnasnet.BN = models.regnet.BN = nn.BatchNorm2d

    class MNas(nn.Module):
        """A stem, two inverted residuals, of which the first adds its input, a last convolution, a classifier."""

        def __init__(self):
            super().__init__()
            block = models.mnasnet._InvertedResidual
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Sequential(block(8, 8, 3, 1, 2), block(8, 8, 3, 2, 2)),
                nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            )  # fmt: skip
            self.classifier = nn.Sequential(nn.Dropout(p=0.0), nn.Linear(16, CLASSES))

        def forward(self, x):
            return self.classifier(self.layers(x).mean([2, 3]))

    class Reg(nn.Module):
        """A stem, two bottlenecks, of which the first changes the shape, a classifier."""

        def __init__(self):
            super().__init__()
            self.stem = models.regnet.SimpleStemIN(3, 8)
            self.s1 = models.regnet.AnyStage(8, 12, 2, 2, models.regnet.ResBottleneckBlock, 1.0, 4, None)
            self.head = models.regnet.AnyHead(w_in=12, nc=CLASSES)

        def forward(self, x):
            return self.head(self.s1(self.stem(x)))

    tensors = {"images": images()}
    for name, net, weight in [("mnasnet", MNas, 0.2), ("regnet", Reg, 0.01)]:
        brecq_network(quant, name, made_up(net(), 2), weight, tensors)
    return tensors


def brecq_network(quant, name, model, weight, tensors):
    x, stream = tensors["images"], Stream.of_seed(0)
    state = model.state_dict().items()
    tensors.update({f"{name}.fp.{key}": value.clone() for key, value in state if value.is_floating_point()})
    weights = {"n_bits": 2, "channel_wise": True, "scale_method": "mse"}
    acts = {"n_bits": 2, "channel_wise": False, "scale_method": "mse", "leaf_param": True}
    qnn = quant.QuantModel(model, weights, acts).eval()
    qnn.set_first_last_layer_to_8bit()
    qnn.set_quant_state(True, False)
    qnn(x)
    common = {"cali_data": x, "batch_size": BATCH, "iters": ITERATIONS, "opt_mode": "mse"}
    phases = {
        "weights": {**common, "weight": weight, "asym": True, "b_range": (20, 2), "warmup": 0.2, "act_quant": False},
        "activations": {**common, "act_quant": True, "lr": 4e-4, "p": 2.4},
    }

    def train(module, path, phase):
        for key, child in module.named_children():
            inner = f"{path}.{key}" if path else key
            is_block = isinstance(child, quant.BaseQuantBlock)
            if not is_block and not isinstance(child, quant.QuantModule):
                train(child, inner, phase)
            elif not child.ignore_reconstruction:
                unit = inner.split(".layers.")[0] if inner.startswith("layers.3.") else inner
                draws = stream.named(unit) if phase == "weights" else stream.named(unit).named(phase)
                # A network that is a list of layers: each draws for itself.
                draws = draws.named(inner) if name == "mnasnet" else draws
                steps = iter(range(1, ITERATIONS + 1))
                torch.randperm = lambda n: draws.at(BATCHES).at(next(steps)).permutation(n)
                reconstruct = quant.block_reconstruction if is_block else quant.layer_reconstruction
                reconstruct(qnn, child, **phases[phase])

    train(qnn.model, "", "weights")
    qnn.set_quant_state(True, True)
    with torch.no_grad():
        qnn(x)
    qnn.disable_network_output_quantization()
    train(qnn.model, "", "activations")
    qnn.eval()
    qnn.set_quant_state(True, True)
    with torch.no_grad():
        tensors[f"{name}.logits"] = qnn(x)
    for key, module in qnn.model.named_modules():
        if isinstance(module, quant.QuantModule):
            tensors[f"{name}.{key}.scale"] = module.weight_quantizer.delta
            if hasattr(module.weight_quantizer, "alpha"):
                tensors[f"{name}.{key}.alpha"] = module.weight_quantizer.alpha
            if not module.disable_act_quant:
                tensors[f"{name}.{key}.act"] = module.act_quantizer.delta
                tensors[f"{name}.{key}.act_bits"] = torch.tensor(float(module.act_quantizer.n_bits))
        elif isinstance(module, quant.BaseQuantBlock):
            tensors[f"{name}.{key}.act"] = module.act_quantizer.delta
            tensors[f"{name}.{key}.act_bits"] = torch.tensor(float(module.act_quantizer.n_bits))


def main():
    if len(sys.argv) == 4:
        # Modules of the three have the same names.
        for name, path in zip(["genie", "metaaug", "brecq"], sys.argv[1:]):
            subprocess.run([sys.executable, __file__, name, path], check=True)
        return
    name, path = sys.argv[1:]
    torch.set_num_threads(1)
    # What nothing here calls.
    for module in ["wandb", "fire", "torchvision", "torchvision.transforms", "dataset", "tqdm", "linklink"]:
        sys.modules[module] = MagicMock(__spec__=ModuleSpec(module, None))
    torch.clamp = Clamp.apply
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *args: self
    own_to = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **kwargs: self if args[:1] == ("cuda",) else own_to(self, *args, **kwargs)
    tensors = {"genie": genie, "metaaug": metaaug, "brecq": brecq}[name](path)
    tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    file = os.path.join(HERE, f"../tests/golden/units_{name}.safetensors")
    save_file(tensors, file)
    print(f"{os.path.normpath(file)}: {len(tensors)} tensors, {os.path.getsize(file)} bytes")


if __name__ == "__main__":
    main()
