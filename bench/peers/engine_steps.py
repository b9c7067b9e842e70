"""The training steps of bench/engine/our-steps.ts in PyTorch: the same function from the same first values."""
import time

import torch
import torch.nn.functional as F

from layers import adamw, block, layer_norm
from values import hash_integers, hash_values

COSINE_SCALE = 10
SEED_INPUT, SEED_TARGET = 10_001, 10_002


def _start(parameter, seed, device):
    count = 1
    for side in parameter["shape"]:
        count *= side
    start = parameter["start"]
    if "constant" in start:
        return torch.full(parameter["shape"], float(start["constant"]), requires_grad=True, device=device)
    return torch.from_numpy(hash_values(seed, count, start["bound"])).view(parameter["shape"]).to(device).requires_grad_()


class Step:
    def __init__(self, spec, bf16, device="cpu"):
        self.device = device
        self.bf16, self.batch, self.sizes = bf16, spec["batch"], spec["sizes"]
        self.parameters = {p["name"]: _start(p, index + 1, device) for index, p in enumerate(spec["parameters"])}
        o = spec["optimizer"]
        self.optimizer = adamw(list(self.parameters.values()), o["lr"], (o["beta1"], o["beta2"]), o["eps"], o["weightDecay"])
        getattr(self, "_prepare_" + spec["model"])()
        self.loss = getattr(self, "_loss_" + spec["model"])

    def _input(self, *shape):
        count = 1
        for side in shape:
            count *= side
        x = torch.from_numpy(hash_values(SEED_INPUT, count, 1.5)).view(*shape).to(self.device)
        return x.bfloat16() if self.bf16 else x

    def _get(self, prefix):
        return lambda name: self.parameters[prefix + name]

    def _prepare_target(self):
        values = hash_values(SEED_TARGET, self.batch * self.sizes["embedDim"], 1)
        self.target = F.normalize(torch.from_numpy(values).view(self.batch, -1), dim=-1).to(self.device)
        self.labels = torch.arange(self.batch, device=self.device)

    def _tower_loss(self, features):
        # Out of autocast: covey's features are fp32 as well.
        with torch.autocast(self.device, enabled=False):
            logits = COSINE_SCALE * F.normalize(features.float(), dim=-1) @ self.target.t()
            return F.cross_entropy(logits, self.labels)

    def _prepare_transformer(self):
        self.x = self._input(self.batch, self.sizes["patches"], self.sizes["patch"])
        self.labels = torch.arange(self.batch, device=self.device) * 7 % self.sizes["classes"]

    def _loss_transformer(self):
        p = self.parameters
        x = F.linear(self.x, p["patch.weight"], p["patch.bias"])
        token = p["token.embedding"].to(x.dtype).expand(self.batch, 1, -1)
        x = torch.cat([token, x], 1) + p["position"].to(x.dtype)
        for i in range(self.sizes["layers"]):
            x = block(x, self._get(f"blocks.{i}."), self.sizes["heads"], False)
        x = layer_norm(x, p["norm.weight"], p["norm.bias"]).mean(1)
        return F.cross_entropy(F.linear(x, p["head.weight"], p["head.bias"]).float(), self.labels)

    def _prepare_image(self):
        side = self.sizes["imageSize"]
        self.x = self._input(self.batch, side, side, 3).permute(0, 3, 1, 2).contiguous()
        self._prepare_target()

    def _loss_image(self):
        p, sizes = self.parameters, self.sizes
        x = F.conv2d(self.x, p["visual.conv1.weight"], stride=sizes["patchSize"]).flatten(2).transpose(1, 2)
        token = p["visual.class_embedding"].to(x.dtype).expand(self.batch, 1, -1)
        x = torch.cat([token, x], 1) + p["visual.positional_embedding"].to(x.dtype)
        x = layer_norm(x, p["visual.ln_pre.weight"], p["visual.ln_pre.bias"])
        x = self._blocks(x, "visual.transformer.resblocks", sizes["width"] // sizes["headWidth"], False, 0)
        x = layer_norm(x.float(), p["visual.ln_post.weight"], p["visual.ln_post.bias"])
        with torch.autocast(self.device, enabled=False):
            return self._tower_loss(x @ p["visual.proj"])

    def _prepare_text(self):
        length, vocabulary = self.sizes["contextLength"], self.sizes["vocabSize"]
        self.ids = torch.from_numpy(hash_integers(SEED_INPUT, self.batch * length, vocabulary - 1)).view(-1, length).to(self.device)
        self.ids[:, -1] = vocabulary - 1
        self._prepare_target()

    def _loss_text(self):
        p = self.parameters
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        x = (F.embedding(self.ids, p["token_embedding.weight"]) + p["positional_embedding"]).to(dtype)
        x = self._blocks(x, "transformer.resblocks", self.sizes["heads"], True, self.ids.argmax(-1))
        x = layer_norm(x.float(), p["ln_final.weight"], p["ln_final.bias"])
        with torch.autocast(self.device, enabled=False):
            return self._tower_loss(x @ p["text_projection"])

    def _prepare_resnet(self):
        self.buffers = {}
        for name, p in self.parameters.items():
            if p.dim() == 1 and name.endswith(".weight"):
                self.buffers[name[:-7]] = (torch.zeros(p.shape, device=self.device), torch.ones(p.shape, device=self.device))
        side = self.sizes["imageSize"]
        # Channels first: channels_last took 1.0 (torch 2.15) to 1.5 times (1.13, bf16) the CPU time of a step.
        self.x = self._input(self.batch, side, side, 3).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.arange(self.batch, device=self.device) * 7 % self.sizes["classes"]

    def _loss_resnet(self):
        p = self.parameters
        x = self._norm(F.conv2d(self.x, p["conv1.weight"], stride=2, padding=3), "bn1")
        x = F.max_pool2d(F.relu(x, inplace=True), 3, 2, 1)
        for stage in range(1, 5):
            i = 0
            while f"layer{stage}.{i}.conv1.weight" in p:
                x = self._bottleneck(x, f"layer{stage}.{i}.", 2 if stage > 1 and i == 0 else 1)
                i += 1
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return F.cross_entropy(F.linear(x, p["fc.weight"], p["fc.bias"]).float(), self.labels)

    def _norm(self, x, name):
        mean, variance = self.buffers[name]
        return F.batch_norm(x, mean, variance, self.parameters[name + ".weight"], self.parameters[name + ".bias"], True)

    def _bottleneck(self, x, name, stride):
        """As torchvision writes it, in-place where it is."""
        p = self.parameters
        out = F.relu(self._norm(F.conv2d(x, p[name + "conv1.weight"]), name + "bn1"), inplace=True)
        out = F.conv2d(out, p[name + "conv2.weight"], stride=stride, padding=1)
        out = F.relu(self._norm(out, name + "bn2"), inplace=True)
        out = self._norm(F.conv2d(out, p[name + "conv3.weight"]), name + "bn3")
        if name + "downsample.0.weight" in p:
            x = self._norm(F.conv2d(x, p[name + "downsample.0.weight"], stride=stride), name + "downsample.1")
        out += x
        return F.relu(out, inplace=True)

    def _blocks(self, x, prefix, heads, causal, pooled):
        layers = self.sizes["layers"]
        for i in range(layers):
            x = block(x, self._get(f"{prefix}.{i}."), heads, causal, pooled if i == layers - 1 else None)
        return x

    def step(self):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def run(self, request):
        answer = {"wallMs": [], "cpuMs": [], "losses": []}
        for _ in range(request["count"]):
            cpu, wall = time.process_time(), time.perf_counter()
            loss = self.step()
            answer["wallMs"].append(1000 * (time.perf_counter() - wall))
            answer["cpuMs"].append(1000 * (time.process_time() - cpu))
            answer["losses"].append(loss)
        return answer
