"""CLIP's two towers in plain PyTorch, in float64, written from open_clip's description (transformer.py) and from nothing of covey.

usage: clip_reference.py WEIGHTS INPUTS CONFIG OUTPUT
WEIGHTS  safetensors with open_clip keys
INPUTS   safetensors: pixels [B,3,S,S], ids [B,L] (as floats), image_gradient and text_gradient [B,E]
CONFIG   open_clip_config.json
OUTPUT   safetensors: image, text [B,E] and grad.KEY of sum(image*image_gradient) + sum(text*text_gradient)
"""
import json
import struct
import sys

import torch
import torch.nn.functional as F


def read(path):
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        data = f.read()
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32"
        begin, end = entry["data_offsets"]
        flat = torch.tensor(struct.unpack(f"<{(end - begin) // 4}f", data[begin:end]), dtype=torch.float64)
        out[name] = flat.reshape(entry["shape"])
    return out


def write(path, tensors):
    header, blobs, at = {}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().float().contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def layer_norm(x, w, name):
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], 1e-5)


def blocks(x, w, prefix, layers, heads, mask, quick):
    width = x.shape[-1]
    for i in range(layers):
        p = f"{prefix}.{i}."
        y = layer_norm(x, w, p + "ln_1").transpose(0, 1)
        y, _ = F.multi_head_attention_forward(
            y, y, y, width, heads, w[p + "attn.in_proj_weight"], w[p + "attn.in_proj_bias"], None, None, False, 0.0,
            w[p + "attn.out_proj.weight"], w[p + "attn.out_proj.bias"], training=False, need_weights=False, attn_mask=mask,
        )
        x = x + y.transpose(0, 1)
        y = F.linear(layer_norm(x, w, p + "ln_2"), w[p + "mlp.c_fc.weight"], w[p + "mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y) if quick else F.gelu(y)
        x = x + F.linear(y, w[p + "mlp.c_proj.weight"], w[p + "mlp.c_proj.bias"])
    return x


def image_embedding(w, pixels, cfg, quick):
    v = cfg["vision_cfg"]
    x = F.conv2d(pixels, w["visual.conv1.weight"], stride=v["patch_size"]).flatten(2).transpose(1, 2)
    cls = w["visual.class_embedding"].expand(x.shape[0], 1, -1)
    x = torch.cat([cls, x], 1) + w["visual.positional_embedding"]
    x = layer_norm(x, w, "visual.ln_pre")
    x = blocks(x, w, "visual.transformer.resblocks", v["layers"], v["width"] // v["head_width"], None, quick)
    return F.normalize(layer_norm(x, w, "visual.ln_post")[:, 0] @ w["visual.proj"], dim=-1)


def text_embedding(w, ids, cfg, quick):
    t = cfg["text_cfg"]
    x = w["token_embedding.weight"][ids] + w["positional_embedding"]
    length = t["context_length"]
    mask = torch.full((length, length), float("-inf"), dtype=x.dtype).triu(1)
    x = blocks(x, w, "transformer.resblocks", t["layers"], t["heads"], mask, quick)
    x = layer_norm(x, w, "ln_final")
    return F.normalize(x[torch.arange(x.shape[0]), ids.argmax(-1)] @ w["text_projection"], dim=-1)


def main():
    weights, inputs, config, output = sys.argv[1:]
    w = {name: tensor.requires_grad_() for name, tensor in read(weights).items()}
    given = read(inputs)
    cfg = json.load(open(config))["model_cfg"]
    quick = cfg["quick_gelu"]
    image = image_embedding(w, given["pixels"], cfg, quick)
    text = text_embedding(w, given["ids"].long(), cfg, quick)
    ((image * given["image_gradient"]).sum() + (text * given["text_gradient"]).sum()).backward()
    grads = {f"grad.{name}": tensor.grad for name, tensor in w.items() if tensor.grad is not None}
    write(output, {"image": image, "text": text, **grads})


main()
