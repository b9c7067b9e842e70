import { describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { elementCount, parameterShapes } from '../../models/clip/parameter-shapes.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { presets } from '../../models/presets.ts';

const parsedModel = (model: unknown) =>
  runConfigSchema.parse({
    run: 'r',
    store: 'file:///tmp/x',
    model,
    data: { manifest: 'file:///tmp/m' },
    train: { steps: 1, globalBatch: 4, lanes: 2 },
  }).model;

const count = (name: string) =>
  parameterShapes(resolveModelConfig(name)).reduce((sum, { shape }) => sum + elementCount(shape), 0);

describe('presets', () => {
  it("have open_clip's parameter counts (docs/model_profile.csv: 151.28, 149.62, 427.62 and 102.01 M)", () => {
    expect(count('ViT-B-32')).toBe(151_277_313);
    expect(count('ViT-B-16')).toBe(149_620_737);
    expect(count('ViT-L-14')).toBe(427_616_513);
    expect(count('RN50')).toBe(102_007_137);
  });

  it('resolve without complaint, each', () => {
    for (const name of Object.keys(presets)) expect(resolveModelConfig(name)).toEqual(presets[name]);
  });

  it('differ only in the activation where they are called quickgelu', () => {
    expect(resolveModelConfig('ViT-B-16-quickgelu')).toEqual({ ...presets['ViT-B-16'], quickGelu: true });
  });
});

describe('overrides', () => {
  it('change what they name and leave the rest of the preset, also values that have defaults', () => {
    const model = parsedModel({ preset: 'tiny', vision: { width: 128 }, text: { layers: 2 }, quickGelu: true });
    expect(model).toEqual({ preset: 'tiny', vision: { width: 128 }, text: { layers: 2 }, quickGelu: true });
    const resolved = resolveModelConfig(model);
    expect(resolved.vision).toEqual({ ...presets.tiny!.vision, width: 128 });
    expect(resolved.text).toEqual({ ...presets.tiny!.text, layers: 2 });
    expect(resolved.quickGelu).toBe(true);
    expect(resolved.embedDim).toBe(presets.tiny!.embedDim);
  });

  it('may be a whole model without a preset, with defaults filled', () => {
    const resolved = resolveModelConfig({
      embedDim: 8,
      vision: { imageSize: 8, patchSize: 4, width: 64, layers: 1 },
      text: { contextLength: 4, vocabSize: 600, width: 16, heads: 2, layers: 1 },
    });
    expect(resolved.vision).toMatchObject({ headWidth: 64, mlpRatio: 4 });
    expect(resolved.quickGelu).toBe(false);
  });

  it('that do not fit are all named at once, with the values', () => {
    const wrong = () =>
      resolveModelConfig({
        preset: 'tiny',
        vision: { patchSize: 13, width: 100 },
        text: { heads: 5, contextLength: 2 },
      });
    expect(wrong).toThrow(/patchSize: must divide vision.imageSize \(48\), is 13/);
    expect(wrong).toThrow(/headWidth: must divide vision.width \(100\), is 64/);
    expect(wrong).toThrow(/text.heads: must divide text.width \(192\), is 5/);
    expect(wrong).toThrow(/contextLength/);
  });

  it('without a preset must be complete', () => {
    expect(() => resolveModelConfig({ embedDim: 8 })).toThrow(/model\.vision\.imageSize/);
  });

  it('of an unknown preset are refused with the known names', () => {
    expect(() => resolveModelConfig('ViT-B-64')).toThrow(/'ViT-B-64'; there are tiny, ViT-B-32/);
  });
});
