#!/usr/bin/env python3
"""Trains the embedded full-precision networks on Fashion-MNIST on the CPU; needs torch, numpy, safetensors.

usage: train_fashion_mnist.py {resnet20|mobilenetv2_tiny} OUTDIR [--epochs N] [--seed S] [--bs 128] [--maxlr 0.2]

Reads the gzipped IDX files of Debian's package dataset-fashion-mnist, or of the folder in the variable FMNIST.
"""
import argparse, gzip, json, os, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

DATA = os.environ.get('FMNIST', '/usr/share/datasets/fashion-mnist')
MEAN, STD = 0.2860, 0.3530


def load_idx(name):
    with gzip.open(os.path.join(DATA, name)) as f:
        b = f.read()
    nd = b[3]
    dims = [int.from_bytes(b[4 + 4 * i:8 + 4 * i], 'big') for i in range(nd)]
    return np.frombuffer(b, np.uint8, offset=4 + 4 * nd).reshape(dims).copy()


def load_split(train=True):
    p = 'train' if train else 't10k'
    x = torch.from_numpy(load_idx(f'{p}-images-idx3-ubyte.gz')).float().div_(255.)
    x = ((x - MEAN) / STD).unsqueeze(1)
    y = torch.from_numpy(load_idx(f'{p}-labels-idx1-ubyte.gz')).long()
    return x, y


class BasicBlock(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, s, 1, bias=False); self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False); self.bn2 = nn.BatchNorm2d(o)
        self.downsample = None
        if s != 1 or i != o:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out, inplace=True)


class ResNet20(nn.Module):
    def __init__(self, in_ch=1, num_classes=10, widths=(16, 32, 64), n=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_ch, widths[0], 3, 1, 1, bias=False); self.bn1 = nn.BatchNorm2d(widths[0])
        i = widths[0]
        for k, w in enumerate(widths):
            blocks = []
            for j in range(n):
                blocks.append(BasicBlock(i, w, 2 if (k > 0 and j == 0) else 1)); i = w
            setattr(self, f'layer{k+1}', nn.Sequential(*blocks))
        self.fc = nn.Linear(i, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean([2, 3]))


def cbr(i, o, k, s, g=1):
    return nn.Sequential(nn.Conv2d(i, o, k, s, (k - 1) // 2, groups=g, bias=False), nn.BatchNorm2d(o), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """torchvision naming: conv.0.0 (expand), conv.1.0 (dw), conv.2 (project), conv.3 (bn)"""
    def __init__(self, i, o, s, t):
        super().__init__()
        h = i * t
        self.use_res = s == 1 and i == o
        layers = [cbr(i, h, 1, 1)] if t != 1 else []
        layers += [cbr(h, h, 3, s, h), nn.Conv2d(h, o, 1, bias=False), nn.BatchNorm2d(o)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.use_res else self.conv(x)


MBV2_CFG = [[1, 16, 1, 1], [4, 24, 2, 2], [4, 32, 2, 2], [4, 64, 2, 1]]   # t, c, n, s


class MobileNetV2Tiny(nn.Module):
    def __init__(self, in_ch=1, num_classes=10, stem=16, last=128):
        super().__init__()
        feats = [cbr(in_ch, stem, 3, 1)]
        i = stem
        for t, c, n, s in MBV2_CFG:
            for j in range(n):
                feats.append(InvertedResidual(i, c, s if j == 0 else 1, t)); i = c
        feats.append(cbr(i, last, 1, 1))
        self.features = nn.Sequential(*feats)
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(last, num_classes))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out')

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


MODELS = {'resnet20': ResNet20, 'mobilenetv2_tiny': MobileNetV2Tiny}


def augment(x, g):
    n = x.size(0)
    xp = F.pad(x, (2, 2, 2, 2), value=(0 - MEAN) / STD)
    dx = torch.randint(0, 5, (n,), generator=g); dy = torch.randint(0, 5, (n,), generator=g)
    flip = torch.rand(n, generator=g) < 0.5
    ii = dy.view(-1, 1, 1) + torch.arange(28).view(1, -1, 1)
    jj = torch.arange(28).view(1, 1, -1).expand(n, 1, 28).clone()
    jj[flip] = 27 - jj[flip]
    jj = jj + dx.view(-1, 1, 1)
    return xp[torch.arange(n).view(-1, 1, 1), 0, ii, jj].unsqueeze(1)


@torch.no_grad()
def evaluate(model, x, y, bs=500):
    model.eval()
    return sum((model(x[i:i + bs]).argmax(1) == y[i:i + bs]).sum().item() for i in range(0, len(x), bs)) / len(x)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('arch'); ap.add_argument('outdir')
    ap.add_argument('--epochs', type=int, default=6); ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--bs', type=int, default=128); ap.add_argument('--maxlr', type=float, default=0.2)
    ap.add_argument('--wd', type=float, default=5e-4); ap.add_argument('--threads', type=int, default=2)
    ap.add_argument('--channels-last', action='store_true'); ap.add_argument('--time', action='store_true'); ap.add_argument('--titers', type=int, default=30)
    a = ap.parse_args()
    torch.set_num_threads(a.threads); torch.manual_seed(a.seed)
    xtr, ytr = load_split(True); xte, yte = load_split(False)
    net = MODELS[a.arch]()
    mf = torch.channels_last if a.channels_last else torch.contiguous_format
    net = net.to(memory_format=mf)
    decay = [p for p in net.parameters() if p.ndim > 1]; nodecay = [p for p in net.parameters() if p.ndim <= 1]
    opt = torch.optim.SGD([{'params': decay, 'weight_decay': a.wd}, {'params': nodecay, 'weight_decay': 0.0}],
                          lr=a.maxlr, momentum=0.9, nesterov=True)
    steps = len(xtr) // a.bs
    sch = torch.optim.lr_scheduler.OneCycleLR(opt, a.maxlr, total_steps=steps * a.epochs, pct_start=0.25)
    g = torch.Generator().manual_seed(a.seed + 1)
    t0 = time.time(); hist = []
    for ep in range(a.epochs):
        net.train(); perm = torch.randperm(len(xtr), generator=g); ls = 0.
        for it in range(steps):
            idx = perm[it * a.bs:(it + 1) * a.bs]
            xb = augment(xtr[idx], g).contiguous(memory_format=mf)
            loss = F.cross_entropy(net(xb), ytr[idx])
            opt.zero_grad(set_to_none=True); loss.backward(); opt.step(); sch.step(); ls += loss.item()
            if a.time and it == a.titers:
                print('s/iter', (time.time() - t0) / (it + 1)); return
            if it % 100 == 0:
                print(f'{a.arch} ep{ep} it{it}/{steps} loss {loss.item():.3f} t={time.time()-t0:.0f}s', flush=True)
        acc = evaluate(net, xte, yte); hist.append(acc)
        print(f'{a.arch} EPOCH {ep} trainloss {ls/steps:.4f} test_acc {acc:.4f} t={time.time()-t0:.0f}s', flush=True)
        sd = {k: v.detach().float().contiguous().clone() for k, v in net.state_dict().items() if 'num_batches' not in k}
        save_file(sd, f'{a.outdir}/{a.arch}_fmnist.safetensors.tmp', metadata={'arch': a.arch})
        os.replace(f'{a.outdir}/{a.arch}_fmnist.safetensors.tmp', f'{a.outdir}/{a.arch}_fmnist.safetensors')
        meta = dict(arch=a.arch, dataset='fashion-mnist', test_accuracy=acc, epochs_done=ep + 1, epochs=a.epochs, finished=ep + 1 == a.epochs,
                    seed=a.seed, batch=a.bs, max_lr=a.maxlr, weight_decay=a.wd, history=hist, mean=MEAN, std=STD, bn_eps=1e-5,
                    input=[1, 28, 28], num_classes=10, mbv2_cfg=MBV2_CFG if 'mobile' in a.arch else None, train_s=time.time() - t0,
                    layers=[dict(name=n, type=type(m).__name__, weight=list(m.weight.shape), stride=list(getattr(m, 'stride', [])) if isinstance(m, nn.Conv2d) else None,
                                 padding=list(m.padding) if isinstance(m, nn.Conv2d) else None, groups=getattr(m, 'groups', None), bias=m.bias is not None)
                            for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))],
                    tensors={k: list(v.shape) for k, v in sd.items()}, torch=torch.__version__)
        json.dump(meta, open(f'{a.outdir}/{a.arch}_fmnist.json', 'w'), indent=1)


if __name__ == '__main__':
    main()
