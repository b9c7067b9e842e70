"""The ops of bench/engine/our-ops.ts in PyTorch, with the same inputs."""
import time

import torch
import torch.nn.functional as F

from layers import adamw, attention, block, layer_norm
from values import hash_values


class Inputs:
    """Leaves from the shared hash: the n-th has seed n. Activations are in compute storage, parameters fp32."""

    def __init__(self, bf16):
        self.leaves, self.bf16 = [], bf16

    def _add(self, shape, bound, dtype):
        count = 1
        for side in shape:
            count *= side
        leaf = torch.from_numpy(hash_values(len(self.leaves) + 1, count, bound)).view(*shape).to(dtype).requires_grad_()
        self.leaves.append(leaf)
        return leaf

    def activation(self, *shape):
        return self._add(shape, 1, torch.bfloat16 if self.bf16 else torch.float32)

    def parameter(self, *shape):
        return self._add(shape, shape[-1] ** -0.5 if len(shape) > 1 else 0.02, torch.float32)


def _linear(spec, inputs):
    x = inputs.activation(spec["rows"], spec["inputs"])
    weight, bias = inputs.parameter(spec["outputs"], spec["inputs"]), inputs.parameter(spec["outputs"])
    return lambda: [F.linear(x, weight, bias)]


def _attention(spec, inputs):
    qkv = inputs.activation(spec["batch"], spec["tokens"], 3 * spec["heads"] * spec["headWidth"])
    return lambda: [attention(qkv, spec["heads"], spec["causal"])]


def _layer_norm(spec, inputs):
    x = inputs.activation(spec["rows"], spec["width"])
    weight, bias = inputs.parameter(spec["width"]), inputs.parameter(spec["width"])
    return lambda: [layer_norm(x, weight, bias)]


def _add_layer_norm(spec, inputs):
    x, delta = inputs.activation(spec["rows"], spec["width"]), inputs.activation(spec["rows"], spec["width"])
    weight, bias = inputs.parameter(spec["width"]), inputs.parameter(spec["width"])

    def forward():
        total = x + delta
        return [total, layer_norm(total, weight, bias)]

    return forward


def _gelu(spec, inputs):
    x = inputs.activation(spec["rows"], spec["width"])
    return lambda: [F.gelu(x)]


def _block(spec, inputs):
    width = spec["width"]
    x = inputs.activation(spec["batch"], spec["tokens"], width)
    shapes = {
        "ln_1.weight": [width],
        "ln_1.bias": [width],
        "attn.in_proj_weight": [3 * width, width],
        "attn.in_proj_bias": [3 * width],
        "attn.out_proj.weight": [width, width],
        "attn.out_proj.bias": [width],
        "ln_2.weight": [width],
        "ln_2.bias": [width],
        "mlp.c_fc.weight": [4 * width, width],
        "mlp.c_fc.bias": [4 * width],
        "mlp.c_proj.weight": [width, 4 * width],
        "mlp.c_proj.bias": [width],
    }
    parameters = {name: inputs.parameter(*shape) for name, shape in shapes.items()}
    return lambda: [block(x, parameters.__getitem__, spec["heads"], False)]


FORWARDS = {
    "linear": _linear,
    "attention": _attention,
    "layerNorm": _layer_norm,
    "addLayerNorm": _add_layer_norm,
    "gelu": _gelu,
    "block": _block,
}


def _sum_and_norm(tensor):
    values = tensor.detach().double()
    return [values.sum().item(), values.norm().item()]


class Watch:
    def __init__(self):
        self.phases = {}
        self.start()

    def start(self):
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def lap(self, phase):
        wall, cpu = time.perf_counter(), time.process_time()
        timings = self.phases.setdefault(phase, {"wallMs": [], "cpuMs": []})
        timings["wallMs"].append(1000 * (wall - self.wall))
        timings["cpuMs"].append(1000 * (cpu - self.cpu))
        self.start()


class Ops:
    """Ops stay prepared between requests: the sides take turns over the same op."""

    def __init__(self, bf16):
        self.bf16, self.name, self.repeat, self.check_once = bf16, None, None, None
        # One autocast context for good: its cache then keeps the bf16 copies of the weights, as covey keeps its own between updates.
        if bf16:
            torch.autocast("cpu", torch.bfloat16).__enter__()

    def _prepare(self, spec):
        if self.name != spec["name"]:
            torch.clear_autocast_cache()
            self.repeat, self.check_once = self._update(spec) if spec["op"] == "adamW" else self._differentiated(spec)
            self.name = spec["name"]

    def check(self, request):
        self._prepare(request["spec"])
        return self.check_once()

    def run(self, request):
        self._prepare(request["spec"])
        watch = Watch()
        for _ in range(request["count"]):
            self.repeat(watch)
        return watch.phases

    def _differentiated(self, spec):
        inputs = Inputs(self.bf16)
        forward = FORWARDS[spec["op"]](spec, inputs)
        gradients = [torch.from_numpy(hash_values(99, y.numel(), 1)).view(y.shape).to(y.dtype) for y in forward()]

        def check():
            outputs = forward()
            torch.autograd.backward(outputs, gradients)
            return [_sum_and_norm(tensor) for tensor in outputs + [leaf.grad for leaf in inputs.leaves]]

        def repeat(watch):
            for leaf in inputs.leaves:
                leaf.grad = None
            watch.start()
            outputs = forward()
            watch.lap("forward")
            torch.autograd.backward(outputs, gradients)
            del outputs
            watch.lap("backward")

        return repeat, check

    def _update(self, spec):
        inputs = Inputs(False)
        parameters = [inputs.parameter(*shape) for shape in spec["shapes"]]
        flat = torch.from_numpy(hash_values(99, sum(parameter.numel() for parameter in parameters), 1e-3))
        for parameter, values in zip(parameters, flat.split([parameter.numel() for parameter in parameters])):
            parameter.grad = values.view(parameter.shape)
        optimizer = adamw(parameters, 1e-4, (0.9, 0.98), 1e-6, 0.1)

        def check():
            optimizer.step()
            return [_sum_and_norm(parameter) for parameter in parameters]

        def repeat(watch):
            watch.start()
            optimizer.step()
            watch.lap("update")

        return repeat, check
