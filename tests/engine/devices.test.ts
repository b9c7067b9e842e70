import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { busyShare } from '../../bench/support/gpu-trace.ts';
import { packageRoot } from '../../common/built-module.ts';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { chooseDevice, findDevices, isDeviceChoice } from '../../engine/devices.ts';
import { loadEngine } from '../../engine/index.ts';
// @ts-expect-error: plain JavaScript
import { findLibtorch, NoLibtorch } from '../../scripts/find-libtorch.mjs';
import { hasTorch } from '../support/engines.ts';

describe('a device is chosen', () => {
  it.each([
    ['cpu', 4, 0, 'cpu', 0],
    ['auto', 0, 3, 'cpu', 0],
    ['auto', 1, 3, 'cuda', 0],
    ['cuda', 4, 6, 'cuda', 2],
    ['cuda:1', 4, 6, 'cuda', 1],
  ] as const)('%s among %d GPUs by worker %d is %s %d', (choice, gpus, worker, kind, index) => {
    expect(chooseDevice(choice, gpus, worker)).toEqual({ kind, index });
  });

  it.each([
    ['cuda', 0, /sees no GPU/],
    ['cuda:2', 2, /sees 2 GPUs \(cuda:0…cuda:1\)/],
    ['cuda:1', 1, /sees 1 GPU \(cuda:0\)/],
  ])('%s among %d GPUs is refused', (choice, gpus, message) => {
    expect(() => chooseDevice(choice, gpus, 0)).toThrow(message);
    expect(() => chooseDevice(choice, gpus, 0)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
  });

  it.each(['gpu', 'cpu:1', 'auto:0', 'cuda:', 'cuda:x', ''])('%j is no device', (text) => {
    expect(isDeviceChoice(text)).toBe(false);
    expect(() => chooseDevice(text, 8, 0)).toThrow(/auto, cpu, cuda or cuda:N/);
  });
});

describe.skipIf(!hasTorch)('the torch engine', () => {
  it('says where it computes', async () => {
    const engine = await loadEngine({ engine: 'torch', threads: 1, device: 'cpu' });
    expect(engine.device).toBe('cpu');
    expect(findDevices().devices[0]).toBe('cpu');
  });

  it('refuses a GPU that is not there, and goes on as it was', async () => {
    const missing = `cuda:${findDevices().devices.length - 1}`;
    await expect(loadEngine({ engine: 'torch', threads: 1, device: missing })).rejects.toThrow(/docs\/gpu\.md/);
    // Not even the engine auto falls back where a GPU was named.
    await expect(loadEngine({ engine: 'auto', threads: 1, device: missing })).rejects.toThrow(/docs\/gpu\.md/);
    expect((await loadEngine({ engine: 'torch', threads: 1, device: 'cpu' })).device).toBe('cpu');
  });
});

it('an engine without GPUs refuses one', async () => {
  await expect(loadEngine({ engine: 'cpu', threads: 1, device: 'cuda' })).rejects.toThrow(/use the engine torch/);
});

it('a run cannot ask for a GPU on an engine without', () => {
  const parse = (workers: object) =>
    runConfigSchema.safeParse({
      run: 'r',
      store: 'file:///s',
      model: 'tiny',
      data: { manifest: 'file:///d/manifest.json' },
      train: { steps: 10, globalBatch: 8, lanes: 1 },
      workers,
    });
  expect(parse({ engine: 'torch', device: 'cuda' }).data?.workers.device).toBe('cuda');
  expect(parse({ engine: 'wasm' }).data?.workers.device).toBe('auto');
  expect(parse({ engine: 'wasm', device: 'cuda' }).error?.issues).toEqual([
    expect.objectContaining({ path: ['workers', 'device'], message: 'needs the engine torch, workers.engine is wasm' }),
  ]);
});

it('the busy share of a trace counts overlapping work once and leaves the host out', () => {
  const kernel = (ts: number, dur: number, cat = 'kernel') => ({ ph: 'X', cat, ts, dur });
  const events = [kernel(100, 50), kernel(120, 40), kernel(180, 20, 'gpu_memcpy'), kernel(0, 1000, 'cpu_op')];
  expect(busyShare(events)).toBeCloseTo(80 / 100, 12);
  expect(busyShare([kernel(0, 10, 'cpu_op')])).toBeNull();
});

describe('libtorch is found', () => {
  it('or the folder that has none is named', () => {
    expect(() => findLibtorch('/nowhere')).toThrow(NoLibtorch);
    expect(() => findLibtorch('/nowhere')).toThrow(/\/nowhere has no include\/ATen\/ATen\.h/);
    expect(() => findLibtorch('pip:/nowhere/python')).toThrow(/\/nowhere\/python does not run/);
  });

  it('and a build that cannot have the libtorch it was told of fails', () => {
    const env = { ...process.env, COVEY_LIBTORCH: '/nowhere' };
    const built = spawnSync(process.execPath, ['scripts/build-addon.mjs'], {
      cwd: packageRoot(),
      env,
      encoding: 'utf8',
    });
    expect(built.status).toBe(1);
    expect(built.stdout).toMatch(/not built: COVEY_LIBTORCH: \/nowhere/);
  });
});
