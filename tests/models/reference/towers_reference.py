"""Image towers in plain PyTorch, in float64, written from open_clip's, timm's and MAE's descriptions and from nothing of covey.

usage: towers_reference.py FOLDER
FOLDER/settings.json  tower, weights (key -> shape), pixels [B,3,S,S], embedding width
FOLDER/KEY, pixels, gradient [B,E]: raw little-endian float32
Writes out.evaluation and out.training [B,E] (unit length), out.KEY.grad, and out.KEY of the batch's statistics for running_* keys.
"""
import json
import sys

import torch
import torch.nn.functional as F

folder = sys.argv[1]
settings = json.load(open(f"{folder}/settings.json"))
torch.set_num_threads(1)


def read(name, shape):
    data = open(f"{folder}/{name}", "rb").read()
    return torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(shape).double()


def write(name, tensor):
    open(f"{folder}/{name}", "wb").write(tensor.detach().float().contiguous().numpy().tobytes())


w = {name: read(name, shape) for name, shape in settings["weights"].items()}
statistics = {}


def bn(x, name, training):
    mean, var = w[f"{name}.running_mean"].clone(), w[f"{name}.running_var"].clone()
    y = F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], training, 1.0, 1e-5)
    if training:
        statistics[f"{name}.running_mean"], statistics[f"{name}.running_var"] = mean, var
    return y


def modified_resnet(x, training):
    """open_clip modified_resnet.py: Bottleneck, ModifiedResNet, AttentionPool2d."""
    p = "visual."
    for i in (1, 2, 3):
        x = F.conv2d(x, w[f"{p}conv{i}.weight"], stride=2 if i == 1 else 1, padding=1)
        x = F.relu(bn(x, f"{p}bn{i}", training))
    x = F.avg_pool2d(x, 2)
    for stage, count in enumerate(settings["blocks"]):
        for j in range(count):
            b = f"{p}layer{stage + 1}.{j}"
            stride = 2 if stage > 0 and j == 0 else 1
            out = F.relu(bn(F.conv2d(x, w[f"{b}.conv1.weight"]), f"{b}.bn1", training))
            out = F.relu(bn(F.conv2d(out, w[f"{b}.conv2.weight"], padding=1), f"{b}.bn2", training))
            if stride > 1:
                out = F.avg_pool2d(out, stride)
            out = bn(F.conv2d(out, w[f"{b}.conv3.weight"]), f"{b}.bn3", training)
            identity = x
            if f"{b}.downsample.0.weight" in w:
                identity = F.avg_pool2d(x, stride) if stride > 1 else x
                identity = bn(F.conv2d(identity, w[f"{b}.downsample.0.weight"]), f"{b}.downsample.1", training)
            x = F.relu(out + identity)
    x = x.flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x], 0) + w[f"{p}attnpool.positional_embedding"][:, None]
    a = f"{p}attnpool."
    x, _ = F.multi_head_attention_forward(
        x[:1], x, x, x.shape[-1], settings["heads"], None,
        torch.cat([w[f"{a}{k}_proj.bias"] for k in "qkv"]), None, None, False, 0.0,
        w[f"{a}c_proj.weight"], w[f"{a}c_proj.bias"], use_separate_proj_weight=True, training=training, need_weights=False,
        q_proj_weight=w[f"{a}q_proj.weight"], k_proj_weight=w[f"{a}k_proj.weight"], v_proj_weight=w[f"{a}v_proj.weight"],
    )
    return x[0]


def norm(x, name):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], settings["eps"])


def dense(x, name):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def vit(x, training):
    heads = settings["heads"]
    x = F.conv2d(x, w["visual.conv1.weight"], w.get("visual.conv1.bias"), stride=settings["patch"])
    x = x.flatten(2).transpose(1, 2)
    has_class = "visual.class_embedding" in w
    if has_class:
        x = torch.cat([w["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = x + w["visual.positional_embedding"]
    if "visual.ln_pre.weight" in w:
        x = norm(x, "visual.ln_pre")
    for i in range(settings["layers"]):
        b = f"visual.transformer.resblocks.{i}"
        y = norm(x, f"{b}.ln_1").transpose(0, 1)
        y, _ = F.multi_head_attention_forward(
            y, y, y, y.shape[-1], heads, w[f"{b}.attn.in_proj_weight"], w[f"{b}.attn.in_proj_bias"], None, None, False, 0.0,
            w[f"{b}.attn.out_proj.weight"], w[f"{b}.attn.out_proj.bias"], need_weights=False,
        )
        x = x + y.transpose(0, 1)
        x = x + dense(F.gelu(dense(norm(x, f"{b}.ln_2"), f"{b}.mlp.c_fc")), f"{b}.mlp.c_proj")
    if settings["pooling"] == "avg":
        # MAE models_vit.py: the mean over patches, then fc_norm
        x = norm(x[:, 1 if has_class else 0:].mean(1), "visual.ln_post")
    else:
        x = map_head(norm(x, "visual.ln_post"), heads)
    return x @ w["visual.proj"]


def map_head(x, heads):
    """timm AttentionPoolLatent: latent length 1, no norms of q and k, pool 'token'."""
    p = "visual.attn_pool"
    B, T, C = x.shape
    q = dense(w[f"{p}.latent"].expand(B, -1, -1), f"{p}.q").reshape(B, 1, heads, C // heads).transpose(1, 2)
    k, v = dense(x, f"{p}.kv").reshape(B, T, 2, heads, C // heads).permute(2, 0, 3, 1, 4)
    x = ((q @ k.transpose(-1, -2) * (C // heads) ** -0.5).softmax(-1) @ v).transpose(1, 2).reshape(B, 1, C)
    x = dense(x, f"{p}.proj")
    x = x + dense(F.gelu(dense(norm(x, f"{p}.norm"), f"{p}.mlp.fc1")), f"{p}.mlp.fc2")
    return x[:, 0]


tower = modified_resnet if settings["tower"] == "modified-resnet" else vit
pixels = read("pixels", settings["pixelShape"])
with torch.no_grad():
    write("out.evaluation", F.normalize(tower(pixels, False), dim=-1))
for name, tensor in w.items():
    tensor.requires_grad_("running_" not in name)
out = F.normalize(tower(pixels, True), dim=-1)
write("out.training", out)
out.backward(read("gradient", out.shape))
for name, tensor in w.items():
    if tensor.grad is not None:
        write(f"out.{name}.grad", tensor.grad)
for name, tensor in statistics.items():
    write(f"out.{name}", tensor)
