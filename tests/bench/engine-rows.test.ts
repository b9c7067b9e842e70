import { describe, expect, it } from 'vitest';
import { engineRow, engineTable, type SideResult, sideResult, verdict } from '../../bench/engine/rows.ts';
import { imageCase, resnetCase, textCase, transformerCase, transformerFlops } from '../../bench/engine/step-specs.ts';
import { run } from '../../bench/engine.ts';

function side(name: string, median: number, peakRss: number | null = null): SideResult {
  return { ...sideResult({ name, version: '1' }, { wallMs: [median], cpuMs: [median] }), peakRss };
}

describe('a row of the engine benchmark', () => {
  const row = { case: 'x', precision: 'fp32', threads: 1 } as const;

  it('compares with the fastest peer and, for memory, with the smallest', () => {
    const found = engineRow(row, [side('covey', 100, 1000), side('a', 120, 2000), side('b', 110, 3000)]);
    expect(found.ratio).toBeCloseTo(1.1);
    expect(found.memoryRatio).toBeCloseTo(0.5);
    expect(found.verdict).toBe('must');
  });

  it('has neither ratio nor verdict without a peer', () => {
    const found = engineRow(row, [side('covey', 100, 1000)]);
    expect([found.ratio, found.memoryRatio, found.verdict]).toEqual([null, null, 'none']);
  });

  it('falls short where either time or memory does', () => {
    expect(verdict(0.99, 0.5, null)).toBe('short');
    expect(verdict(2, 1.06, null)).toBe('short');
    expect(verdict(1, 1.05, null)).toBe('must');
  });

  it('meets the aim only with the share of the peak where that counts', () => {
    expect(verdict(1.2, 1, null)).toBe('aim');
    expect(verdict(1.2, 1, 0.79)).toBe('must');
    expect(verdict(1.2, 1, 0.8)).toBe('aim');
  });

  it('leaves out columns that nothing fills', () => {
    const { head, rows } = engineTable([engineRow(row, [side('covey', 100), side('debian', 120)])]);
    expect(head).toEqual(['case', '', 'covey', 'debian', 'ratio', 'CPU ratio', 'verdict']);
    expect(rows[0]).toEqual(['x', 'fp32 ×1', '100 (100)', '120 (120)', '1.2', '1.2', 'aim']);
  });
});

describe('FLOPs of a step', () => {
  it('count every product of a small transformer', () => {
    const flops = { batch: 2, tokens: 3, width: 4, layers: 1, causal: false, pooled: false, patch: 5, outputs: 7 };
    // Products as rows × inputs × outputs: qkv, q·kᵀ, p·v, out, up, down; classifier; patches (no gradient of their input).
    const block = 6 * 4 * 12 + 2 * 3 * 3 * 4 + 2 * 3 * 3 * 4 + 6 * 4 * 4 + 6 * 4 * 16 + 6 * 16 * 4;
    expect(transformerFlops(flops)).toBe(2 * (3 * (block + 2 * 4 * 7) + 2 * (2 * 2 * 5 * 4)));
    expect(transformerFlops({ ...flops, causal: true })).toBe(transformerFlops(flops) - 2 * 3 * (2 * 2 * 3 * 4));
    expect(transformerFlops({ ...flops, pooled: true })).toBe(
      transformerFlops(flops) - 2 * 3 * (4 * 4 * 4 + 2 * 4 * 4 * 16),
    );
  });

  it('agree with what is published: ResNet-50 4.09 and ViT-B/32 4.4 thousand million multiply-adds an image', () => {
    expect(resnetCase(1).flops / 3 / 2e9).toBeCloseTo(4.05, 1);
    const { sizes } = imageCase(1).spec;
    expect(sizes).toMatchObject({ width: 768, layers: 12, imageSize: 224, patchSize: 32 });
    // Less the last block's work for the tokens that nobody reads.
    expect(imageCase(1).flops / 3 / 2e9).toBeGreaterThan(4.36 * 0.92);
    expect(imageCase(1).flops / 3 / 2e9).toBeLessThan(4.42);
  });

  it('belong to models of the right size', () => {
    const millions = ({ spec }: ReturnType<typeof textCase>) =>
      spec.parameters.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0) / 1e6;
    expect(millions(imageCase())).toBeCloseTo(87.8, 0);
    expect(millions(textCase())).toBeCloseTo(63.4, 0);
    expect(millions(resnetCase())).toBeCloseTo(25.6, 1);
    expect(millions(transformerCase())).toBeCloseTo(4.8, 1);
  });
});

it('the engine benchmark refuses values it does not know', async () => {
  const options = { quick: true, json: true };
  await expect(run({ ...options, threads: '3' })).rejects.toThrow('--threads takes 1, 2, 4, 8, 16: value is 3');
  await expect(run({ ...options, precision: 'fp16' })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});
