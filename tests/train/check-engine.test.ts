import { describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { ENGINE_NAMES, type EngineName } from '../../engine/capabilities.ts';
import { checkEngineFor } from '../../worker/train/check-engine.ts';

function config(model: string, globalBatch: number, precision: 'fp32' | 'bf16' = 'fp32', train: object = {}) {
  return runConfigSchema.parse({
    run: 'r',
    store: 'file:///s',
    model,
    data: { manifest: 'file:///d/manifest.json' },
    train: { steps: 10, globalBatch, lanes: 1, precision, ...train },
  });
}

describe('what an engine is asked to train', () => {
  it.each(ENGINE_NAMES)('may be the model tiny with a small batch on %s', (engine) => {
    expect(checkEngineFor(config('tiny', 8), engine).secondsPerStep).toBeGreaterThan(0);
  });

  it.each<[EngineName, RegExp]>([
    ['cpu', /engine cpu cannot train this: a step would take about .* s .*Use the engine torch/],
    ['wasm', /engine wasm cannot train this: .*a worker would need about .* GB, the engine has 4\.3 GB/],
  ])('is refused for ViT-B-32 with a batch of 1,024 on %s, with what to use instead', (engine, message) => {
    expect(() => checkEngineFor(config('ViT-B-32', 1024), engine)).toThrow(message);
    expect(() => checkEngineFor(config('ViT-B-32', 1024), 'torch')).not.toThrow();
  });

  it('comes with a warning where bf16 means fp32', () => {
    expect(checkEngineFor(config('tiny', 8, 'bf16'), 'cpu').warnings.join()).toMatch(/no bf16: it computes in fp32/);
    expect(checkEngineFor(config('tiny', 8, 'bf16'), 'torch').warnings).toEqual([]);
  });

  it('needs memory for as many samples as go through the model at once', () => {
    const message = (train: object) => {
      try {
        checkEngineFor(config('ViT-B-32', 1024, 'fp32', train), 'wasm');
        return '';
      } catch (error) {
        return String(error);
      }
    };
    expect(message({ lanes: 8 })).toMatch(/a worker would need about/);
    expect(message({ lanes: 512, gradCache: true })).not.toMatch(/a worker would need about/);
    expect(message({ microBatch: 2 })).not.toMatch(/a worker would need about/);
  });

  it('is one of the engines that a config can name', () => {
    for (const engine of ENGINE_NAMES) {
      const { workers, ...rest } = config('tiny', 8);
      expect(runConfigSchema.parse({ ...rest, workers: { ...workers, engine } }).workers.engine).toBe(engine);
    }
  });
});
