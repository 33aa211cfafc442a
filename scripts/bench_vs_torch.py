#!/usr/bin/env python3
"""Times the harness's steps beside PyTorch's on the same shapes and the same work, in alternation, and prints ratios.

    pip install torch higher            # CPU builds do
    scripts/bench_vs_torch.py [--arch resnet20] [--threads 2] [--rounds 5] [--markdown results/bench/resnet20.md]
    scripts/bench_vs_torch.py --arch resnet20 --only cell        # minutes: one whole cell of QDrop on each side
    scripts/bench_vs_torch.py --arch resnet18 --device cuda:0    # both sides on a GPU; --peer, --seconds: see --help

Any architecture will do: those without embedded weights take made-up ones and random images of 224 x 224.

PyTorch does what the published codes do (QDrop's reconstruction step, Genie's search, MetaAug's step with `higher`),
written with the same operations, on networks of the same structure with random weights; `benches/peer.rs` is the other
side. Each round times one side after the other; the table gives the fastest round of each. A ratio below 1: the harness
is faster. GFLOP/s count the multiply-adds of convolutions and linear layers, forward and backward.

On a GPU both sides compute in float32 without TF32 (unless --tf32), wait for the device before they read a clock, and PyTorch
leaves cuDNN's benchmark mode off, as the published codes do. The tables are written as they grow: what ends the script leaves
what was measured.
"""
import argparse
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["reconstruct", "evaluate", "search", "meta", "cell"], help="one of the tables")
    parser.add_argument("--cell", action="store_true", help="a whole cell too: 1,024 images, 1,000 iterations per unit")
    parser.add_argument("--markdown", help="where to write the tables")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for both sides")
    parser.add_argument("--tf32", action="store_true", help="let both sides round the factors of products to TF32 on a GPU")
    parser.add_argument("--peer", help="a built benchmark `peer`, in place of `cargo bench`")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further measurement after so long")
    return parser.parse_args()


STARTED = time.monotonic()
ARGUMENTS = arguments()
# Before the libraries that read them.
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)
if not ARGUMENTS.tf32:
    # For cuBLAS and cuDNN on both sides, whatever a program asks them for.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

BATCH = 32
BITS = 2
DEVICE = torch.device(ARGUMENTS.device)
ON_GPU = DEVICE.type == "cuda"


class Ended(Exception):
    """The harness's side ended without an answer."""


class Harness:
    """The other side: requests go to its standard input."""

    def __init__(self, threads):
        self.environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), CANDLE_NUM_THREADS="1")
        features = ["--features", "cuda"] if ON_GPU else []
        build_and_run = ["cargo", "bench", "--quiet", *features, "--bench", "peer", "--"]
        self.command = [os.path.abspath(ARGUMENTS.peer)] if ARGUMENTS.peer else build_and_run
        self.process = None

    def start(self):
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        command = [*self.command, "--device", ARGUMENTS.device, *["--tf32"] * (ON_GPU and ARGUMENTS.tf32)]
        self.process = subprocess.Popen(command, cwd=root, env=self.environment, **pipes)

    def ask(self, **request):
        """Its answer; where it ends instead, the next request starts it anew."""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.process = None
            raise Ended(f"the harness's side ended at {json.dumps(request)}: see its message above")
        return json.loads(answer)


class Report:
    """The tables, written whenever a row comes."""

    def __init__(self, head):
        self.head, self.tables = head, []

    def table(self, title, head):
        self.tables.append((title, head, []))

    def rows(self, rows):
        """All rows of the last table; prints the last of them."""
        self.tables[-1][2][:] = ["| " + " | ".join(cells) + " |" for cells in rows]
        print(self.tables[-1][2][-1], flush=True)
        self.write()

    def row(self, *cells):
        self.tables[-1][2].append("| " + " | ".join(cells) + " |")
        print(self.tables[-1][2][-1], flush=True)
        self.write()

    def write(self):
        if not ARGUMENTS.markdown:
            return
        lines = self.head()
        for title, head, rows in self.tables:
            if rows:
                lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *rows]
        os.makedirs(os.path.dirname(os.path.abspath(ARGUMENTS.markdown)), exist_ok=True)
        with open(ARGUMENTS.markdown, "w") as file:
            file.write("\n".join(lines) + "\n")


def is_late(what):
    """Whether the time is up, which is said."""
    late = time.monotonic() - STARTED > ARGUMENTS.seconds
    if late:
        print(f"not measured, since {ARGUMENTS.seconds:.0f} s are over: {what}", flush=True)
    return late


def wait():
    """For the work that the device was given."""
    if ON_GPU:
        torch.cuda.synchronize(DEVICE)


def rounding_h(alpha):
    return (torch.sigmoid(alpha) * 1.2 - 0.1).clamp(0, 1)


def same(extent, node, stride):
    """TensorFlow's padding before and behind."""
    zeros = max((-(-extent // stride) - 1) * stride + node["weight"][2] - extent, 0)
    return zeros // 2, zeros - zeros // 2


def ste(x):
    return (x.round() - x).detach() + x


def regulariser(alpha, beta):
    return (1 - (2 * rounding_h(alpha) - 1).abs().pow(beta)).sum()


class Unit(torch.nn.Module):
    """One unit of the network as the published codes quantize it.

    `outputs`: activations quantized at layer outputs (QDrop: LSQ with its gradient factor), else at layer inputs (Genie,
    MetaAug: no factor, learned weight scales, a gain and bias of BatchNorm behind the convolution).
    """

    def __init__(self, described, outputs):
        super().__init__()
        self.name, self.nodes, self.outputs = described["name"], described["nodes"], outputs
        self.input = described["input"]
        self.scale, self.alpha, self.act = (torch.nn.ParameterDict() for _ in range(3))
        for index, node in enumerate(self.nodes):
            if "weight" not in node:
                continue
            shape = node["weight"]
            weight = torch.randn(shape) * math.sqrt(2 / math.prod(shape[1:]))
            self.register_buffer(f"weight{index}", weight)
            self.register_buffer(f"bias{index}", torch.zeros(shape[0]))
            self.register_buffer(f"gain{index}", torch.ones(shape[0]))
            flat = weight.flatten(1)
            low, high = flat.min(1).values * 0.7, flat.max(1).values * 0.7
            scale = ((high - low) / (2**BITS - 1)).view(-1, *[1] * (weight.dim() - 1))
            self.register_buffer(f"zero{index}", (-low.view_as(scale) / scale).round())
            self.register_buffer(f"floor{index}", (weight / scale).floor())
            rest = weight / scale - (weight / scale).floor()
            self.scale[str(index)] = torch.nn.Parameter(scale, requires_grad=not outputs)
            self.alpha[str(index)] = torch.nn.Parameter(-torch.log(1.2 / (rest + 0.1) - 1))
        for site in sorted(set(self.site(i, s) for i, s in self.places())):
            self.act[site] = torch.nn.Parameter(torch.tensor([0.5]))

    def places(self):
        """Where activations are quantized: (node, input slot) or, at outputs, (node, None)."""
        for index, node in enumerate(self.nodes):
            if not self.outputs:
                for slot, source in enumerate(node["inputs"]):
                    if "weight" in node or (node["kind"] == "add" and source == -1):
                        yield index, slot
                continue
            computes = node["kind"] in ("conv", "linear", "relu", "relu6", "add") and self.name != "classifier"
            consumers = [other["kind"] for other in self.nodes if index in other["inputs"]]
            if computes and not any(kind in ("relu", "relu6", "add") for kind in consumers):
                yield index, None

    def site(self, index, slot):
        return f"o{index}" if slot is None else f"i{self.nodes[index]['inputs'][slot] + 1}"

    def quantized(self, index, mode):
        key = str(index)
        alpha, scale, zero = self.alpha[key], self.scale[key], getattr(self, f"zero{index}")
        h = rounding_h(alpha) if mode == "soft" else (alpha >= 0).float()
        q = (getattr(self, f"floor{index}") + h + zero).clamp(0, 2**BITS - 1) - zero
        return scale * q

    def search_act(self, x, site):
        """QDrop's: the threshold of 100 with the least error."""
        high, best = 2**BITS - 1, math.inf
        for i in range(1, 101):
            scale = x.max() * i / 100 / high
            error = (((x / scale).round().clamp(0, high) * scale - x).abs().pow(2.4)).mean()
            if error < best:
                best = error
                self.act[site].fill_(scale.item())

    def quantize_act(self, x, site, mode):
        if mode == "search":
            self.search_act(x, site)
            return x
        scale, high = self.act[site], 2**BITS - 1
        if self.outputs:
            factor = 1 / math.sqrt(x.numel() * high)
            scale = (scale - scale * factor).detach() + scale * factor
            q = ste(x / scale).clamp(0, high) * scale
        else:
            q = ste((x / scale).clamp(0, high)) * scale
        return torch.where(torch.rand_like(x) < 0.5, q, x) if mode == "soft" else q

    def forward(self, x, mode):
        """`mode`: full, hard, soft (soft rounding, half of the activations dropped), or search (full, and finds ranges)."""
        values, places = [], set(self.places())
        for index, node in enumerate(self.nodes):
            inputs = [x if source == -1 else values[source] for source in node["inputs"]]
            if mode != "full":
                for slot in range(len(inputs)):
                    if (index, slot) in places:
                        inputs[slot] = self.quantize_act(inputs[slot], self.site(index, slot), mode)
            y, kind = inputs[0], node["kind"]
            if "weight" in node:
                weight = getattr(self, f"weight{index}") if mode in ("full", "search") else self.quantized(index, mode)
                bias = getattr(self, f"bias{index}")
            if kind == "conv":
                stride, padding, groups = node["geometry"]
                if padding == "same":
                    y, padding = F.pad(y, [side for extent in (3, 2) for side in same(y.shape[extent], node, stride)]), 0
                if self.outputs:
                    y = F.conv2d(y, weight, bias, stride, padding, 1, groups)
                else:
                    zeros, ones = torch.zeros_like(bias), torch.ones_like(bias)
                    y = F.conv2d(y, weight, None, stride, padding, 1, groups)
                    y = F.batch_norm(y, zeros, ones, getattr(self, f"gain{index}"), bias, False, 0, 1e-5)
            elif kind == "linear":
                y = F.linear(y, weight, bias)
            elif kind == "relu":
                y = F.relu(y)
            elif kind == "relu6":
                y = F.relu6(y)
            elif kind == "add":
                y = inputs[0] + inputs[1]
            elif kind == "max-pool":
                y = F.max_pool2d(y, *node["pool"])
            elif kind == "global-avg-pool":
                y = y.mean((2, 3), keepdim=True)
            elif kind == "flatten":
                y = y.flatten(1)
            if mode != "full" and (index, None) in places:
                y = self.quantize_act(y, self.site(index, None), mode)
            values.append(y)
        return values[-1]

    def multiply_adds(self, images):
        """Of one forward pass."""
        total, shapes = 0, []
        for node in self.nodes:
            shape = self.input if node["inputs"][0] == -1 else shapes[node["inputs"][0]]
            if node["kind"] == "conv":
                stride, padding, _ = node["geometry"]
                c_out, _, kernel, _ = node["weight"]
                if padding == "same":
                    side = [-(-extent // stride) for extent in shape[1:]]
                else:
                    side = [(extent + 2 * padding - kernel) // stride + 1 for extent in shape[1:]]
                shape = [c_out, *side]
                total += math.prod(node["weight"]) * math.prod(side)
            elif node["kind"] == "max-pool":
                kernel, stride, padding = node["pool"]
                shape = [shape[0], *[(extent + 2 * padding - kernel) // stride + 1 for extent in shape[1:]]]
            elif node["kind"] == "linear":
                total += math.prod(node["weight"])
                shape = [node["weight"][0]]
            elif node["kind"] == "global-avg-pool":
                shape = [shape[0], 1, 1]
            elif node["kind"] == "flatten":
                shape = [math.prod(shape)]
            shapes.append(shape)
        return total * images


def through(units, x, mode):
    for unit in units:
        x = unit(x, mode)
    return x


def timed(work, n):
    work()
    wait()
    started = time.perf_counter()
    for _ in range(n):
        work()
    wait()
    return (time.perf_counter() - started) * 1e3 / n


def torch_reconstruct(unit, n):
    images = 128 if math.prod(unit.input) < 150_000 else 64
    x_fp, x_q = (torch.randn(images, *unit.input, device=DEVICE) for _ in range(2))
    with torch.no_grad():
        y_fp = unit(x_fp, "full")
    return timed(qdrop_step(unit, x_fp, x_q, y_fp, n + 1), n)


def qdrop_step(unit, x_fp, x_q, y_fp, iterations):
    """QDrop's step: gather and mix the inputs, forward, loss, backward, two Adams, a cosine schedule."""
    rounding = torch.optim.Adam(unit.alpha.parameters(), lr=1e-3)
    optimisers = [rounding]
    if len(unit.act):
        acts = torch.optim.Adam(unit.act.parameters(), lr=4e-5)
        optimisers.append(acts)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(acts, iterations)

    def step():
        rows = torch.randint(0, len(x_fp), (BATCH,), device=DEVICE)
        q, fp = x_q[rows], x_fp[rows]
        x = torch.where(torch.rand_like(q) < 0.5, q, fp)
        loss = (unit(x, "soft") - y_fp[rows]).abs().pow(2).sum(1).mean()
        for alpha in unit.alpha.values():
            loss = loss + 0.01 * regulariser(alpha, 10.0)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        if len(unit.act):
            schedule.step()
        float(loss.detach())

    return step


def evaluate(units, x, batch):
    with torch.no_grad():
        for start in range(0, len(x), batch):
            through(units, x[start : start + batch], "hard").argmax(1)


def torch_evaluate(units, images, batch):
    x = torch.randn(images, *units[0].input, device=DEVICE)
    return timed(lambda: evaluate(units, x, batch), 1)


def torch_cell(units, images, iterations, test_images):
    """A cell as QDrop's code goes about it: every unit's inputs are computed from the images on, 32 at a time, in full
    precision and quantized. One run, in milliseconds."""
    calib, test = (torch.randn(n, *units[0].input, device=DEVICE) for n in (images, test_images))
    wait()
    started = time.perf_counter()
    search_weights(units)
    with torch.no_grad():
        through(units, calib[:256], "search")
    for index, unit in enumerate(units):
        cached = [[], [], []]
        with torch.no_grad():
            for x in calib.split(32):
                fp = through(units[:index], x, "full")
                for values, value in zip(cached, (fp, through(units[:index], x, "hard"), unit(fp, "full"))):
                    values.append(value)
        step = qdrop_step(unit, *[torch.cat(values) for values in cached], iterations)
        for _ in range(iterations):
            step()
    evaluate(units, test, 64)
    wait()
    return (time.perf_counter() - started) * 1e3


def search_weights(units):
    """Genie's `init_scale`: 100 candidate ranges per channel, one pass over the weight each."""
    for unit in units:
        for index, node in enumerate(unit.nodes):
            if "weight" not in node:
                continue
            flat = getattr(unit, f"weight{index}").flatten(1)
            best = torch.full((flat.shape[0],), 1e10, device=DEVICE)
            scale, zero = torch.zeros_like(best), torch.zeros_like(best)
            for ratio in torch.arange(1.0, 0.0, -0.01):
                low, high = flat.min(1).values * ratio, flat.max(1).values * ratio
                delta = (high - low) / (2**BITS - 1)
                point = (-low / delta).round()
                q = ((flat / delta[:, None]).round() + point[:, None]).clamp(0, 2**BITS - 1) - point[:, None]
                score = (flat - q * delta[:, None]).abs().pow(2.4).mean(1)
                scale, zero = torch.where(score < best, delta, scale), torch.where(score < best, point, zero)
                best = torch.minimum(score, best)


def torch_search(units):
    return timed(lambda: search_weights(units), 1)


class UNet(torch.nn.Module):
    """MetaAug's, of base 8 and depth 2."""

    def __init__(self, channels, base=8):
        super().__init__()
        nn = torch.nn

        def double(c_in, c_out):
            layers = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv2d(c_out, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())

        self.down = nn.ModuleList([double(channels, base), double(base, 2 * base), double(2 * base, 4 * base)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * base, 2 * base, 2, 2), nn.ConvTranspose2d(2 * base, base, 2, 2)])
        self.join = nn.ModuleList([double(4 * base, 2 * base), double(2 * base, base)])
        self.out = nn.Conv2d(base, channels, 1)

    def forward(self, x):
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        third = self.down[2](F.max_pool2d(second, 2))
        second = self.join[0](torch.cat([second, self.up[0](third)], 1))
        return self.out(self.join[1](torch.cat([first, self.up[1](second)], 1)))


def torch_meta(units, index, n):
    """MetaAug's step with a fresh differentiable Adam, and the norm of each term's gradient, as the harness records it."""
    import higher

    unit, before, after = units[index], units[:index], units[index + 1 :]
    net = UNet(units[0].input[0]).to(DEVICE)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-6)
    images = torch.randn(128, *units[0].input, device=DEVICE)
    with torch.no_grad():
        x_outer, logits = through(before, images, "hard"), through(units, images, "full")
    for other in units:
        other.requires_grad_(other is unit)

    def features(x):
        x = through(units[:-1], x, "full")
        return x.mean((2, 3))

    def mixed(x):
        share = torch.distributions.Beta(4.0, 4.0).sample()
        share = torch.maximum(share, 1 - share)
        return share * x + (1 - share) * x[torch.randperm(len(x), device=DEVICE)]

    def similarity(features):
        rows = features / (features.norm(dim=1, keepdim=True) + 1e-7)
        similar = (rows @ rows.t() + 1) / 2
        return similar / similar.sum(1, keepdim=True)

    def step():
        x, outer = images[torch.randperm(128, device=DEVICE)[:BATCH]], torch.randperm(128, device=DEVICE)[:64]
        t_x = net(x)
        x_in = through(before, t_x, "hard")
        with torch.no_grad():
            target = unit(through(before, t_x, "full"), "full")
        groups = [
            {"params": list(unit.scale.parameters()), "lr": 1e-4},
            {"params": list(unit.act.parameters()), "lr": 4e-5},
            {"params": list(unit.alpha.parameters()), "lr": 1e-3},
        ]
        with higher.innerloop_ctx(unit, torch.optim.Adam(groups)) as (updated, inner):
            loss = (updated(x_in, "soft") - target).pow(2).sum(1).mean()
            for alpha in updated.alpha.values():
                loss = loss + regulariser(alpha, 10.0)
            inner.step(loss)
            q = through(after, updated(x_outer[outer], "soft"), "full")
            fp = F.softmax(logits[outer] / 4, 1)
            val = F.kl_div(F.log_softmax(q / 4, 1), fp, reduction="batchmean")
            margin = F.relu(0.1 - (t_x - x).pow(2).mean())
            p_x, p_t = similarity(features(mixed(x)).detach()), similarity(features(mixed(t_x)))
            pkt = (p_x * torch.log((p_x + 1e-7) / (p_t + 1e-7))).mean()
            parameters = list(net.parameters())
            total = None
            for weight, term in [(5.0, val), (0.5, margin), (3e4, pkt)]:
                gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
                gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)]
                math.sqrt(sum(float(g.pow(2).sum()) for g in gradients))
                weighted = [weight * g for g in gradients]
                total = weighted if total is None else [a + b for a, b in zip(total, weighted)]
        for parameter, gradient in zip(parameters, total):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, 0.1)
        optimiser.step()

    return timed(step, n)


def peak_bytes(work):
    """What `work` returns, and the peak of PyTorch's memory meanwhile: what tensors take on a GPU, else the resident memory of
    this process (Linux)."""
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats(DEVICE)
        return work(), torch.cuda.max_memory_allocated(DEVICE)

    def status(key):
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    try:
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
    except OSError:
        return work(), None
    return work(), status("VmHWM")


def alternate(rounds, ours, theirs):
    """The fastest round of each side; a round that begins late is left out."""
    pairs = []
    while len(pairs) < rounds and not (pairs and time.monotonic() - STARTED > ARGUMENTS.seconds):
        pairs.append((ours(), theirs()))
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def processor():
    """Whose times these are."""
    if ON_GPU:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0] or "?"
        versions = f"driver {driver}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        return f"{torch.cuda.get_device_name(DEVICE)}, {versions}, TF32 {'on' if ARGUMENTS.tf32 else 'off'}"
    with open("/proc/cpuinfo") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


class Measurement:
    """One architecture on both sides."""

    def __init__(self):
        self.arch, self.rounds = ARGUMENTS.arch, ARGUMENTS.rounds
        self.harness = Harness(ARGUMENTS.threads)
        self.peak = self.harness.ask(task="peak")
        self.described = self.harness.ask(task="structure", arch=self.arch)["units"]
        self.by_outputs = [Unit(unit, outputs=True).to(DEVICE) for unit in self.described]
        self.is_small = self.described[0]["input"][1] < 64
        self.report = Report(self.head)

    def head(self):
        n = self.peak["n"]
        options = "".join(
            f" --{name} {value}" if value is not True else f" --{name}"
            for name, value in [("device", ON_GPU and ARGUMENTS.device), ("tf32", ARGUMENTS.tf32), ("cell", ARGUMENTS.cell)]
            if value
        )
        return [
            f"# {self.arch} beside PyTorch",
            "",
            f"{processor()}, {ARGUMENTS.threads} threads; PyTorch {torch.__version__.split('+')[0]}; fastest of {self.rounds} rounds in "
            f"alternation; a matrix product of {n} x {n} reaches {self.peak['gflops']:.0f} GFLOP/s. Made by "
            f"`scripts/bench_vs_torch.py --arch {self.arch}{options}`.",
        ]

    def ask(self, **request):
        return self.harness.ask(arch=self.arch, **request)

    def measure_peak(self):
        """Neighbours on the machine slow single measurements: the peak is that of all of them."""
        peak = self.harness.ask(task="peak")
        self.peak = max(self.peak, peak, key=lambda peak: peak["gflops"])

    def reconstruct(self):
        head = ["unit", "ours ms", "torch ms", "ratio"]
        head += ["ours peak MB", "torch peak MB"] if ON_GPU else ["GFLOP/s", "of peak"]
        self.report.table(f"One reconstruction iteration (QDrop, W2A2, batch {BATCH})", head)
        measured = []
        for unit in self.by_outputs:
            if is_late(unit.name):
                continue
            print(f"timing {unit.name}", file=sys.stderr, flush=True)
            self.measure_peak()
            n, memory = 20 if self.is_small or ON_GPU else 5, [0, 0]

            def ours():
                answer = self.ask(task="reconstruct", unit=unit.name, n=n)
                memory[0] = max(memory[0], answer["peak_bytes"] or 0)
                return answer["ms"]

            def theirs():
                ms, bytes_ = peak_bytes(lambda: torch_reconstruct(unit, n))
                memory[1] = max(memory[1], bytes_ or 0)
                return ms

            try:
                measured.append((unit, *alternate(self.rounds, ours, theirs), memory))
            except Ended as problem:
                print(problem, flush=True)
                continue
            self.report.rows(self.unit_rows(measured))
        if measured:
            sums = [sum(row[side] for row in measured) for side in (1, 2)]
            name = "all units" if len(measured) == len(self.by_outputs) else f"these {len(measured)} of {len(self.by_outputs)} units"
            self.report.row(name, f"{sums[0]:.1f}", f"{sums[1]:.1f}", f"{sums[0] / sums[1]:.2f}", "", "")

    def unit_rows(self, measured):
        for unit, ours, theirs, memory in measured:
            if ON_GPU:
                more = (f"{bytes_ / 1e6:.0f}" for bytes_ in memory)
            else:
                # Forward, and backward to the weights; to the inputs of all but the first layer: about as much.
                gflops = 3 * 2 * unit.multiply_adds(BATCH) / ours / 1e6
                more = (f"{gflops:.0f}", f"{gflops / self.peak['gflops']:.0%}")
            yield unit.name, f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}", *more

    def whole_network(self, tasks):
        self.report.table("Whole network", ["work", "ours ms", "torch ms", "ratio"] + ["ours images/s", "torch images/s"] * ON_GPU)
        images, batch = (1000, 250) if self.is_small else (100, 50)
        if ON_GPU:
            images *= 10
        both = {
            "evaluate": (f"{images:,} images, W2A2", lambda: torch_evaluate(self.by_outputs, images, batch), images),
            "search": ("weight scales, 2 bits", lambda: torch_search(self.by_outputs), 1),
        }
        for task in tasks:
            title, theirs, n = both[task]
            if is_late(title):
                continue
            try:
                a, b = alternate(self.rounds, lambda: self.ask(task=task, n=n)["ms"], theirs)
            except Ended as problem:
                print(problem, flush=True)
                continue
            rates = [f"{n / ms * 1e3:,.0f}" if task == "evaluate" else "" for ms in (a, b)]
            self.report.row(title, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}", *rates * ON_GPU)

    def cell(self):
        if is_late("a whole cell"):
            return
        title = "One cell of QDrop at W2A2: 1,024 images, 1,000 iterations per unit, 10,000 test images; one run each"
        self.report.table(title, ["", "ours s", "torch s", "ratio", "ours peak MB", "torch peak MB"])
        answer = self.ask(task="cell", n=1000)
        theirs, peak_of_theirs = peak_bytes(lambda: torch_cell(self.by_outputs, 1024, 1000, 10_000))
        memory = [answer["peak_bytes"] or 0, peak_of_theirs or 0]
        a, b = answer["ms"] / 1e3, theirs / 1e3
        cells = (f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}", *(f"{bytes_ / 1e6:.0f}" for bytes_ in memory))
        self.report.row("search, reconstruction, evaluation", *cells)

    def meta(self):
        title = "One iteration of MetaAug (UNet of base 8, depth 2; batches of 32 and 64; norms of three terms)"
        self.report.table(title, ["unit", "ours ms", "higher ms", "ratio", "ours peak MB", "higher peak MB"])
        by_inputs = [Unit(unit, outputs=False).to(DEVICE) for unit in self.described]
        blocks = range(1, len(by_inputs) - 1)
        for index in [blocks[0], blocks[len(blocks) // 2], blocks[-1]]:
            name, n = by_inputs[index].name, 5
            if is_late(f"MetaAug, {name}"):
                continue
            memory = [0, 0]

            def ours():
                answer = self.ask(task="meta", unit=name, n=n)
                memory[0] = max(memory[0], answer["peak_bytes"] or 0)
                return answer["ms"]

            def theirs():
                ms, bytes_ = peak_bytes(lambda: torch_meta(by_inputs, index, n))
                memory[1] = max(memory[1], bytes_ or 0)
                return ms

            try:
                a, b = alternate(self.rounds, ours, theirs)
            except Ended as problem:
                print(problem, flush=True)
                continue
            self.report.row(name, f"{a:.0f}", f"{b:.0f}", f"{a / b:.2f}", *(f"{bytes_ / 1e6:.0f}" for bytes_ in memory))


def main():
    torch.set_num_threads(ARGUMENTS.threads)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = ARGUMENTS.tf32
    torch.backends.cudnn.benchmark = False
    wanted = lambda task: ARGUMENTS.only in (None, task)  # noqa: E731
    try:
        measurement = Measurement()
        tables = [measurement.reconstruct] * wanted("reconstruct")
        if tasks := [task for task in ("evaluate", "search") if wanted(task)]:
            tables.append(lambda: measurement.whole_network(tasks))
        # Short beside many units, of which the last may come too late.
        for table in reversed(tables) if ON_GPU else tables:
            table()
        if ARGUMENTS.cell or ARGUMENTS.only == "cell":
            measurement.cell()
        # `higher` keeps the graph of a whole network: at 224 x 224 that is more memory than most machines have.
        if wanted("meta") and measurement.is_small:
            if importlib.util.find_spec("higher"):
                measurement.meta()
            else:
                print("not measured: MetaAug, whose PyTorch side needs `pip install higher`", flush=True)
        measurement.report.write()
    except Ended as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
