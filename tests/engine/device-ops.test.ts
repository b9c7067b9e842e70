// The compositions that run in place of the own kernels on a device (engine/native/generic*.cc). On a machine without GPU they run on the CPU;
// with COVEY_DEVICE=cuda the same tests run on it (`npm run gpu:check`).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busyShare } from '../../bench/support/gpu-trace.ts';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { AdamW, loadEngine, recordForward, tf } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';
import { BATCH_NORM_CASES, CONV_CASES, POOL_CASES, TOKEN_CASES } from '../support/op-cases.ts';
import { evaluate, inHalf, type OpCase, randomInputs, relativeDifference } from '../support/op-check.ts';
import { worstGradientError } from '../support/op-check-fp64.ts';

const prefixed = (prefix: string, cases: Readonly<Record<string, OpCase>>) =>
  Object.fromEntries(Object.entries(cases).map(([name, op]) => [`${prefix} ${name}`, op]));
const CASES: Record<string, OpCase> = {
  ...TOKEN_CASES,
  ...prefixed('batchNorm', BATCH_NORM_CASES),
  ...prefixed('conv2d', CONV_CASES),
  ...POOL_CASES,
};
const onGpu = (process.env['COVEY_DEVICE'] ?? 'cpu') !== 'cpu';

describe.skipIf(!hasTorch)('compositions for devices', () => {
  beforeAll(async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    torchBackend().addon.setGeneric(true);
  });
  afterAll(() => torchBackend().addon.setGeneric(false));

  it.each(Object.keys(CASES))('%s: gradients are those of central differences in fp64', async (name) => {
    await loadEngine({ engine: 'torch', threads: 1 });
    torchBackend().addon.setGeneric(true);
    const before = tf.memory().numTensors;
    // The widest case has a hundred thousand elements: fewer places.
    expect(worstGradientError(CASES[name]!, name.includes('blocks') ? 1 : 6)).toBeLessThan(1e-6);
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(Object.keys(CASES))('%s equals the composition of plain tfjs ops in fp32', async (name) => {
    const { shapes, run } = CASES[name]!;
    const inputs = randomInputs(shapes);
    const plain = await evaluate('cpu', inputs, run);
    const ours = await evaluateGenerically(inputs, run);
    for (const [i, values] of ours.entries()) expect(relativeDifference(plain[i]!, values)).toBeLessThan(2e-6);
  });

  it.each(Object.keys(CASES).filter((name) => !/relu|blocks|maxPool2d/.test(name)))(
    '%s in bf16 stays within its rounding of fp32',
    async (name) => {
      const { shapes, run } = CASES[name]!;
      const inputs = randomInputs(shapes);
      const full = await evaluateGenerically(inputs, run);
      const half = await evaluateGenerically(inputs, inHalf(run));
      for (const [i, values] of half.entries()) expect(relativeDifference(full[i]!, values)).toBeLessThan(5e-2);
    },
  );

  it('AdamW moves parameters as the own kernel does, from one array and from tensors', async () => {
    const gradient = Float32Array.from({ length: 3 * 40 + 7 }, (_, i) => Math.sin(i));
    const own = await train(false, () => gradient);
    const flat = await train(true, () => gradient);
    const apart = await train(true, () => [
      tf.tensor(gradient.slice(0, 120), [3, 40]),
      tf.tensor(gradient.slice(120), [7]),
    ]);
    expect(relativeDifference(own, flat)).toBeLessThan(1e-6);
    expect(apart).toEqual(flat);
  });

  it.skipIf(onGpu)('max pooling in deterministic mode sums in order, to the same gradients', async () => {
    const { shapes, run } = POOL_CASES['maxPool2d with much overlap']!;
    const inputs = randomInputs(shapes);
    const plain = await evaluate('cpu', inputs, run);
    const { addon } = torchBackend();
    addon.setDeviceMath(false, true);
    try {
      const ordered = await evaluateGenerically(inputs, run);
      for (const [i, values] of ordered.entries()) expect(relativeDifference(plain[i]!, values)).toBeLessThan(2e-6);
    } finally {
      addon.setDeviceMath(false, false);
    }
  });

  it.skipIf(onGpu)('the own kernels run again when they are switched off', async () => {
    const { shapes, run } = CASES['causal attention']!;
    const inputs = randomInputs(shapes);
    const own = await evaluate('torch', inputs, run);
    expect(await evaluateGenerically(inputs, run)).not.toEqual(own);
    expect(await evaluate('torch', inputs, run)).toEqual(own);
  });
});

/** `evaluate` on the compositions. */
async function evaluateGenerically(
  inputs: Parameters<typeof evaluate>[1],
  run: OpCase['run'],
): Promise<Float32Array[]> {
  // Switched on inside, after the engine was made current.
  try {
    return await evaluate('torch', inputs, (x) => {
      torchBackend().addon.setGeneric(true);
      return run(x);
    });
  } finally {
    torchBackend().addon.setGeneric(false);
  }
}

/** Three updates of a matrix and a vector with bf16 copies in use; all values after them. */
async function train(generic: boolean, gradientOf: () => Float32Array | tf.Tensor[]): Promise<Float32Array> {
  const engine = await loadEngine({ engine: 'torch', threads: 1 });
  torchBackend().addon.setGeneric(generic);
  const parameters = [tf.variable(tf.range(0, 120).div(60).reshape([3, 40])), tf.variable(tf.ones([7]))];
  const optimiser = new AdamW(engine, {
    parameters,
    weightDecays: [0.2, 0],
    lrScales: [1, 0.5],
    beta1: 0.9,
    beta2: 0.98,
    eps: 1e-6,
  });
  const half = torchBackend().withParameter(parameters[0]!, true, (handle) => torchBackend().addon.alias(handle));
  const gradient = gradientOf();
  // A list of gradients is flattened by the optimiser on the CPU: hand it to the addon itself.
  for (let step = 1; step <= 3; step++) {
    if (gradient instanceof Float32Array) optimiser.step({ gradient, gradientScale: 0.25, lr: 0.01 });
    else updateFromTensors(engine, optimiser, { parameters, gradient, step });
  }
  const values = new Float32Array(127 + 120);
  engine.readInto(parameters[0]!, values.subarray(0, 120));
  engine.readInto(parameters[1]!, values.subarray(120, 127));
  values.set(torchBackend().addon.toTyped(half) as Float32Array, 127);
  torchBackend().addon.release(half);
  torchBackend().addon.setGeneric(false);
  optimiser.dispose();
  tf.dispose([...parameters, ...(gradient instanceof Float32Array ? [] : gradient)]);
  return values;
}

function updateFromTensors(
  engine: Awaited<ReturnType<typeof loadEngine>>,
  optimiser: AdamW,
  { parameters, gradient, step }: { parameters: tf.Variable[]; gradient: tf.Tensor[]; step: number },
): void {
  const constants = { beta1: 0.9, beta2: 0.98, eps: 1e-6, weightDecays: [0.2, 0], rates: [0.01, 0.005] };
  const slots = optimiser.slots.map(({ tensors }) => tensors);
  const target = { parameters, slots, gradient, offsets: [0, 120], gradientScale: 0.25 };
  engine.applyRule({ kind: 'adamW', step, ...constants }, target);
}

it.skipIf(!hasTorch)("libtorch's own profiler writes a trace, or says which libtorch has one", async () => {
  await loadEngine({ engine: 'torch', threads: 1 });
  const { addon } = torchBackend();
  if (/libtorch 1\./.test(addon.describe())) {
    expect(() => addon.traceStart()).toThrow(/traces need libtorch 2\.9/);
    return;
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'covey-trace-'));
  try {
    const file = path.join(folder, 'trace.json');
    addon.traceStart();
    tf.tidy(() => tf.matMul(tf.ones([8, 8]), tf.ones([8, 8])));
    addon.synchronize();
    addon.traceStop(file);
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: { name: string; cat?: string }[] };
    expect(traceEvents.some(({ name }) => /aten::(mm|matmul|bmm)/.test(name))).toBe(true);
    expect(busyShare(traceEvents as never) === null).toBe(!onGpu);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe.skipIf(!hasTorch || onGpu)('placement', () => {
  // The meta device has shapes and no memory. An op that mixes it with a tensor of the CPU throws, and nothing on it can be read.
  // Many operators have no kernel for it in C++ (index_select, native_batch_norm, abs): their ops are checked on a GPU only.
  it.each(['linear', 'mlp', 'gelu', 'quickGelu', 'l2Normalize', 'addTokenAndPosition', 'globalAveragePool'])(
    '%s leaves nothing on the CPU',
    async (name) => {
      await loadEngine({ engine: 'torch', threads: 1 });
      const { addon } = torchBackend();
      const { shapes, run } = CASES[name]!;
      addon.setDevice('meta', 0);
      try {
        const variables = Object.values(shapes).map((shape) => tf.tidy(() => tf.variable(tf.zeros(shape))));
        const recording = recordForward(() => [
          run(Object.fromEntries(Object.keys(shapes).map((key, i) => [key, variables[i]]))),
        ]);
        const output = recording.outputs[0]!;
        expect(() => output.dataSync()).toThrow();
        const upstream = tf.zeros(output.shape);
        let seen = 0;
        recording.backward([upstream], variables, (_, gradient) => {
          expect(() => gradient.dataSync()).toThrow();
          seen++;
        });
        expect(seen).toBe(variables.length);
        tf.dispose([upstream, ...variables]);
      } finally {
        addon.setDevice('cpu', 0);
      }
    },
  );
});
