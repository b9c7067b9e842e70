"""The layers both kinds of measurement are made of, functional: parameters come by name."""
import math
import time

import torch
import torch.nn.functional as F

EPS = 1e-5
HAS_SDPA = hasattr(F, "scaled_dot_product_attention")
# torch 1.13 refuses bf16 input with fp32 weights in layer_norm, also under autocast.
MIXED_LAYER_NORM = int(torch.__version__.split(".")[0]) >= 2
_masks, _kernels = {}, {}


def layer_norm(x, weight, bias):
    if not MIXED_LAYER_NORM:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return F.layer_norm(x, weight.shape, weight, bias, EPS)


def _causal_mask(tokens, dtype):
    key = (tokens, dtype)
    if key not in _masks:
        _masks[key] = torch.full((tokens, tokens), float("-inf"), dtype=dtype).triu_(1)
    return _masks[key]


def _composed(q, k, v, causal):
    # Scaling q is a pass over T*h numbers per head instead of T*T.
    s = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    if causal:
        s = s + _causal_mask(s.shape[-1], s.dtype)
    return s.softmax(-1) @ v


def _fused(q, k, v, causal):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _with(kernel, qkv, heads, causal):
    b, t, packed = qkv.shape
    q, k, v = qkv.view(b, t, 3, heads, packed // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return kernel(q, k, v, causal).transpose(1, 2).reshape(b, t, packed // 3)


def _seconds(kernel, shape, dtype, heads, causal):
    """CPU time of forward and backward, the best of three."""
    qkv = torch.zeros(shape, dtype=dtype, requires_grad=True)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        _with(kernel, qkv, heads, causal).sum().backward()
        best = min(best, time.process_time() - began)
    return best


def _kernel(*key):
    """What a user who measures would take: torch 2.15's fused kernel is 4 times slower in bf16 on a CPU with AVX512_BF16."""
    if not HAS_SDPA:
        return _composed
    # Near each other the fused one is: noise must not decide.
    return _composed if _seconds(_fused, *key) > 1.5 * _seconds(_composed, *key) else _fused


def attention(qkv, heads, causal):
    key = (qkv.shape, qkv.dtype, heads, causal)
    if key not in _kernels:
        # On a GPU the fused kernels are the ones to beat; elsewhere it depends.
        _kernels[key] = _fused if qkv.is_cuda else _kernel(*key)
    return _with(_kernels[key], qkv, heads, causal)


def block(x, get, heads, causal, pooled=None):
    """A pre-LN residual block. `pooled`: what follows attention is done for these rows of each sequence only (as covey does)."""
    qkv = F.linear(layer_norm(x, get("ln_1.weight"), get("ln_1.bias")), get("attn.in_proj_weight"), get("attn.in_proj_bias"))
    mixed = attention(qkv, heads, causal)
    if pooled is not None:
        rows = torch.arange(x.shape[0], device=x.device)
        mixed, x = mixed[rows, pooled], x[rows, pooled]
    x = x + F.linear(mixed, get("attn.out_proj.weight"), get("attn.out_proj.bias"))
    hidden = F.linear(layer_norm(x, get("ln_2.weight"), get("ln_2.bias")), get("mlp.c_fc.weight"), get("mlp.c_fc.bias"))
    return x + F.linear(F.gelu(hidden), get("mlp.c_proj.weight"), get("mlp.c_proj.bias"))


def adamw(parameters, lr, betas, eps, weight_decay):
    options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version >= (2, 4):
        return torch.optim.AdamW(parameters, fused=True, **options)
    return torch.optim.AdamW(parameters, foreach=False, **options)
