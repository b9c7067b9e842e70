"""PyTorch's side of bench/step: CLIP with a ViT and a causal text transformer, one AdamW step per request.

Reads one JSON line of settings, answers "ready", then for every line "N" runs N steps and answers their seconds as a JSON list.
"""
import json
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

settings = json.loads(sys.stdin.readline())
torch.set_num_threads(settings["threads"])
torch.manual_seed(0)


class LayerNorm(nn.LayerNorm):
    """torch 1.13 refuses bf16 input with fp32 weights, also under autocast."""

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Block(nn.Module):
    def __init__(self, width, heads, mask):
        super().__init__()
        self.heads, self.mask = heads, mask
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        qkv = self.in_proj(self.ln_1(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        if hasattr(F, "scaled_dot_product_attention"):
            o = F.scaled_dot_product_attention(q, k, v, is_causal=self.mask is not None)
        else:
            s = q @ k.transpose(-2, -1) / math.sqrt(w // self.heads)
            if self.mask is not None:
                s = s + self.mask.to(s.dtype)
            o = s.softmax(-1) @ v
        x = x + self.out_proj(o.transpose(1, 2).reshape(b, t, w))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class Clip(nn.Module):
    def __init__(self, c):
        super().__init__()
        v, t = c["vision"], c["text"]
        tokens = (v["imageSize"] // v["patchSize"]) ** 2 + 1
        self.conv1 = nn.Conv2d(3, v["width"], v["patchSize"], v["patchSize"], bias=False)
        self.cls = nn.Parameter(torch.randn(v["width"]) * v["width"] ** -0.5)
        self.pos = nn.Parameter(torch.randn(tokens, v["width"]) * v["width"] ** -0.5)
        self.ln_pre, self.ln_post = LayerNorm(v["width"]), LayerNorm(v["width"])
        self.image = nn.ModuleList(Block(v["width"], v["width"] // v["headWidth"], None) for _ in range(v["layers"]))
        self.proj = nn.Parameter(torch.randn(v["width"], c["embedDim"]) * v["width"] ** -0.5)
        self.token = nn.Embedding(t["vocabSize"], t["width"])
        self.tpos = nn.Parameter(torch.randn(t["contextLength"], t["width"]) * 0.01)
        mask = torch.full((t["contextLength"], t["contextLength"]), float("-inf")).triu_(1)
        self.text = nn.ModuleList(Block(t["width"], t["heads"], mask) for _ in range(t["layers"]))
        self.ln_final = LayerNorm(t["width"])
        self.text_projection = nn.Parameter(torch.randn(t["width"], c["embedDim"]) * t["width"] ** -0.5)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pixels, ids):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], 1) + self.pos.to(x.dtype)
        x = self.ln_pre(x)
        for block in self.image:
            x = block(x)
        image = F.normalize((self.ln_post(x[:, 0]) @ self.proj).float(), dim=-1)
        y = (self.token(ids) + self.tpos).to(x.dtype)
        for block in self.text:
            y = block(y)
        y = self.ln_final(y)[torch.arange(ids.shape[0]), ids.argmax(-1)]
        text = F.normalize((y @ self.text_projection).float(), dim=-1)
        logits = self.scale.exp() * image @ text.t()
        target = torch.arange(len(logits))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


model = Clip(settings["model"])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
side, batch, text = settings["model"]["vision"]["imageSize"], settings["batch"], settings["model"]["text"]
pixels = torch.randn(batch, 3, side, side)
ids = torch.randint(1, text["vocabSize"] - 2, (batch, text["contextLength"]))
ids[:, -1] = text["vocabSize"] - 1


def step():
    with torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bf16"):
        loss = model(pixels, ids)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.scale.clamp_(0, math.log(100))
    return loss.item()


print(json.dumps({"ready": torch.__version__}), flush=True)
for line in sys.stdin:
    seconds = []
    for _ in range(int(line)):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds), flush=True)
