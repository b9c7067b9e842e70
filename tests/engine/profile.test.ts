import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runProfile } from '../../cli/profile/run-profile.ts';
import { type ModelConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { type Engine, linear, loadEngine, moduleScope, recordForward, tf } from '../../engine/index.ts';
import { attribute } from '../../engine/profile/attribution.ts';
import { kernelCost } from '../../engine/profile/kernel-cost.ts';
import { kernelTable, totalNs } from '../../engine/profile/kernel-table.ts';
import { type ModuleNode, moduleTree } from '../../engine/profile/module-tree.ts';
import { startProfile } from '../../engine/profile/profile.ts';
import type { KernelEvent, ProfileRecord } from '../../engine/profile/record.ts';
import { laneFlops } from '../../models/clip/step-flops.ts';
import { engineNames, hasTorch } from '../support/engines.ts';

const MODEL: ModelConfig = {
  embedDim: 24,
  quickGelu: false,
  vision: { imageSize: 16, patchSize: 4, width: 32, layers: 2, headWidth: 16, mlpRatio: 3 },
  text: { contextLength: 10, vocabSize: 60, width: 48, heads: 4, layers: 3, mlpRatio: 2 },
};
const GLOBAL_BATCH = 12;
const LANES = 2;
const PEAKS = { gemmFlops: 1e11, memoryBytes: 1e10 };

function target(precision: 'fp32' | 'bf16') {
  const training = runConfigSchema.parse({
    run: 'profile',
    store: 'file:///unused',
    model: MODEL,
    data: { manifest: 'file:///unused' },
    train: { steps: 1, globalBatch: GLOBAL_BATCH, lanes: LANES, precision },
  });
  return { name: 'small', model: MODEL, training };
}

function profileOf(engine: Engine, precision: 'fp32' | 'bf16', innerOperators = false) {
  const signal = new AbortController().signal;
  return runProfile(engine, target(precision), { steps: 2, warmupSteps: 1, innerOperators, signal });
}

function child(node: ModuleNode, name: string): ModuleNode {
  const found = node.children.find((one) => one.name === name);
  if (!found) throw new Error(`no module ${name} in ${node.children.map((one) => one.name)}`);
  return found;
}

function everyNode(node: ModuleNode): ModuleNode[] {
  return [node, ...node.children.flatMap(everyNode)];
}

let running: { stop(): ProfileRecord } | undefined;
afterEach(() => {
  try {
    running?.stop();
  } catch {
    // The test stopped it.
  }
  running = undefined;
});

describe.each(engineNames)('a profile on engine %s', { timeout: 60_000 }, (name) => {
  let engine: Engine;
  let result: Awaited<ReturnType<typeof profileOf>>;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
    result = await profileOf(engine, 'fp32');
  });

  it('has kernels that together take no longer than the steps, and most of them', () => {
    const { record, report } = result;
    const attribution = attribute(record);
    expect(attribution.steps).toHaveLength(2);
    const kernelNs = totalNs(attribution.kernels.map(({ event }) => event));
    expect(kernelNs).toBeLessThanOrEqual(totalNs(attribution.steps));
    expect(report.kernelMs).toBeGreaterThan(0);
    expect(report.outsideKernelsMs).toBeGreaterThanOrEqual(0);
    const share = kernelTable(attribution, PEAKS).reduce((sum, row) => sum + row.share, 0);
    expect(share).toBeLessThanOrEqual(1);
  });

  it('has a module tree whose parts add up to the step', () => {
    const attribution = attribute(result.record);
    const tree = moduleTree(attribution);
    const stepMs = totalNs(attribution.steps) / 1e6 / attribution.steps.length;
    expect(tree.totalMs).toBeCloseTo(stepMs, 6);
    for (const node of everyNode(tree)) {
      const children = node.children.reduce((sum, one) => sum + one.totalMs, 0);
      expect(node.totalMs).toBeCloseTo(children + node.selfMs, 6);
      expect(node.totalMs).toBeCloseTo(node.forwardMs + node.backwardMs + node.otherMs, 6);
      expect(node.kernelMs).toBeLessThanOrEqual(node.totalMs + 1e-6);
    }
  });

  it('gives the backward of an op to the module that recorded it', () => {
    const tree = moduleTree(attribute(result.record));
    for (const path of [
      ['image tower', 'patch embedding'],
      ['image tower', 'block 0', 'attention'],
      ['image tower', 'block 1', 'mlp'],
      ['text tower', 'token embedding'],
      ['text tower', 'block 2', 'ln_2'],
    ]) {
      const node = path.reduce(child, tree);
      expect(node.forwardMs, path.join('/')).toBeGreaterThan(0);
      expect(node.backwardMs, path.join('/')).toBeGreaterThan(0);
      expect(node.otherMs, path.join('/')).toBe(0);
    }
    for (const part of ['loss', 'optimiser', 'gradient sums', 'host copies', 'collectives']) {
      expect(child(tree, part).otherMs, part).toBeGreaterThan(0);
      expect(child(tree, part).backwardMs, part).toBe(0);
    }
  });

  it('counts in the image tower and the loss the operations of the formula', () => {
    const { modules, modelFlops } = result.report;
    const image = child(modules, 'image tower').flops;
    expect(image).toBe(modelFlops.imageForward + modelFlops.imageBackward);
    expect(child(modules, 'loss').flops).toBe(modelFlops.loss);
  });

  it('samples memory within the step, and finds a peak that no sample exceeds', () => {
    const { memory } = result.report;
    expect(memory.samples.length).toBeGreaterThan(50);
    for (const [i, sample] of memory.samples.entries()) {
      expect(sample.peakBytes).toBeLessThanOrEqual(memory.peakBytes);
      expect(sample.peakBytes).toBeGreaterThanOrEqual(sample.bytes);
      expect(sample.ms).toBeGreaterThanOrEqual(memory.samples[i - 1]?.ms ?? 0);
    }
    expect(memory.peakBytes).toBeGreaterThan(memory.startBytes);
    // A step leaves nothing behind.
    expect(memory.endBytes).toBe(memory.startBytes);
  });

  it('leaves no trace of itself behind: nothing is recorded, and results are the same', async () => {
    const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const before = tf.matMul(x, x).dataSync();
    running = startProfile(engine);
    const during = moduleScope('square', () => tf.matMul(x, x)).dataSync();
    const record = running.stop();
    const after = tf.matMul(x, x).dataSync();
    expect(Array.from(during)).toEqual(Array.from(before));
    expect(Array.from(after)).toEqual(Array.from(before));
    expect(record.kernels.some(({ name: kernel }) => /matmul/i.test(kernel))).toBe(true);
    expect(record.scopes.map(({ module }) => module.toString())).toEqual(['square']);
    expect(() => startProfile(engine).stop()).not.toThrow();
  });

  it('refuses a second one in the same thread', () => {
    running = startProfile(engine);
    expect(() => startProfile(engine)).toThrow(/one is running/);
  });

  it('closes its scopes where a backward throws', () => {
    const weight = tf.variable(tf.ones([2, 2]));
    const profile = startProfile(engine);
    running = profile;
    const recording = recordForward(() => [
      moduleScope('inner', () => tf.sum(tf.matMul(weight as tf.Tensor2D, tf.ones([2, 2])))),
    ]);
    const seed = tf.scalar(1);
    expect(() =>
      recording.backward([seed], [weight], () => {
        throw new Error('enough');
      }),
    ).toThrow('enough');
    moduleScope('afterwards', () => undefined);
    const record = profile.stop();
    expect(record.scopes.at(-1)!.module.toString()).toBe('afterwards');
    expect(record.scopes.some(({ module, phase }) => module.name === 'inner' && phase === 'backward')).toBe(true);
    tf.dispose([weight, seed]);
  });
});

describe.skipIf(!hasTorch)('a profile of the addon', { timeout: 60_000 }, () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'torch', threads: 1 });
  });

  it.each(['fp32', 'bf16'] as const)('counts exactly the operations of the formula in %s', async (precision) => {
    const { report } = await profileOf(engine, precision);
    const { modelFlops, modules, kernels } = report;
    expect(child(modules, 'text tower').flops).toBe(modelFlops.textForward + modelFlops.textBackward);
    expect(modules.flops).toBe(modelFlops.total);
    expect(kernels.reduce((sum, row) => sum + row.flopsPerStep, 0)).toBeCloseTo(modelFlops.total, 3);
    expect(report.memory.isExact).toBe(true);
  });

  it('knows the shapes of a call in the order of its arguments', () => {
    const x = tf.ones([5, 3, 4]);
    const weight = tf.ones([2, 4]) as tf.Tensor2D;
    running = startProfile(engine);
    linear(x, weight, null).dispose();
    const event = running.stop().kernels.find(({ name }) => name === 'linear')!;
    expect(event.inputs.map(({ shape }) => shape)).toEqual([
      [5, 3, 4],
      [2, 4],
    ]);
    expect(event.outputs).toEqual([{ type: 'float32', elementBytes: 4, shape: [5, 3, 2] }]);
    expect(kernelCost(event)).toEqual({ flops: 2 * 15 * 4 * 2, bytes: 4 * (60 + 8 + 30) });
    tf.dispose([x, weight]);
  });

  it('counts no bytes for a view', () => {
    const x = tf.ones([4, 6]) as tf.Tensor2D;
    running = startProfile(engine);
    tf.slice(x, [1, 0], [2, 6]).dispose();
    const views = running.stop().kernels.filter(({ aliases }) => aliases.length > 0);
    expect(views.length).toBeGreaterThan(0);
    for (const event of views) expect(kernelCost(event).bytes, event.name).toBe(0);
    x.dispose();
  });

  it('sees the operators inside a kernel only when asked, and does not count them twice', async () => {
    const without = await profileOf(engine, 'fp32');
    expect(without.report.innerOperators).toEqual([]);
    const { report, record } = await profileOf(engine, 'fp32', true);
    expect(
      report.innerOperators.some(({ operator, kernel }) => kernel === 'embedding' && operator === 'aten::index_select'),
    ).toBe(true);
    const attribution = attribute(record);
    expect(totalNs(attribution.kernels.map(({ event }) => event))).toBeLessThanOrEqual(totalNs(attribution.steps));
    expect(report.modules.flops).toBe(report.modelFlops.total);
  });

  it('still records after a call that failed', () => {
    const a = tf.ones([2, 3]) as tf.Tensor2D;
    running = startProfile(engine);
    expect(() => linear(a, tf.ones([2, 5]) as tf.Tensor2D, null)).toThrow();
    tf.add(a, a).dispose();
    const names = running.stop().kernels.map(({ name }) => name);
    expect(names).toContain('linear');
    expect(names).toContain('aten::add');
    a.dispose();
  });
});

describe('the operations of a step', () => {
  it('are those counted by hand for one block, one head, one sample', () => {
    const model: ModelConfig = {
      embedDim: 5,
      quickGelu: false,
      vision: { imageSize: 4, patchSize: 2, width: 8, layers: 1, headWidth: 8, mlpRatio: 2 },
      text: { contextLength: 6, vocabSize: 9, width: 4, heads: 1, layers: 1, mlpRatio: 3 },
    };
    const flops = laneFlops(model, { samples: 1, textTokens: 4, globalBatch: 7 });
    const patch = 2 * 4 * 12 * 8;
    // Five tokens: qkv and attention on all, what follows on the class token.
    const image = 2 * 5 * 8 * 24 + 2 * (2 * 25 * 8) + 2 * 8 * 8 + 2 * (2 * 8 * 16) + 2 * 8 * 5;
    // Four tokens see 1 + 2 + 3 + 4 keys.
    const text = 2 * 4 * 4 * 12 + 2 * (2 * 10 * 4) + 2 * 4 * 4 + 2 * (2 * 4 * 12) + 2 * 4 * 5;
    const loss = 6 * (2 * 5 * 7);
    expect(flops).toEqual({
      imageForward: patch + image,
      imageBackward: patch + 2 * image,
      textForward: text,
      textBackward: 2 * text,
      loss,
      total: 2 * patch + 3 * image + 3 * text + loss,
    });
  });

  it('are zero for a kernel that multiplies no matrices', () => {
    const event: KernelEvent = {
      name: 'gelu',
      inputs: [{ type: 'float32', elementBytes: 4, shape: [8] }],
      outputs: [{ type: 'float32', elementBytes: 4, shape: [8] }],
      aliases: [],
      flags: [false],
      hostBytes: 0,
      startedNs: 0,
      endedNs: 1,
    };
    expect(kernelCost(event)).toEqual({ flops: 0, bytes: 64 });
  });
});
