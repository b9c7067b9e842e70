import { describe, expect, it } from 'vitest';
import { evaluationRecord } from '../../cli/demo/demo-report.ts';
import { niceTicks } from '../../cli/report/line-chart.ts';
import { renderReport } from '../../cli/report/render-report.ts';
import type { ReportData } from '../../cli/report/report-data.ts';
import { smooth } from '../../cli/report/smooth.ts';
import { lossCurveImage } from '../../cli/report/training-sections.ts';

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

/** Three pictures; the first two are taken for each other's name, the third is right. Embeddings are unit vectors in the plane. */
function judgement() {
  const classNames = ['red <apple>', 'pear', 'fig'];
  const classEmbeddings = Float32Array.from([1, 0, 0, 1, -1, 0]);
  const imageEmbeddings = Float32Array.from([0, 1, 1, 0, -1, 0]);
  const prediction = (label: string, rank: number, guess: string) => ({
    sampleId: label,
    label,
    rank,
    best: [
      { className: guess, similarity: 1 },
      ...classNames.filter((name) => name !== guess).map((className) => ({ className, similarity: 0 })),
    ],
  });
  const predictions = [
    prediction('red <apple>', 1, 'pear'),
    prediction('pear', 1, 'red <apple>'),
    prediction('fig', 0, 'fig'),
  ];
  const zeroShot = {
    classes: 3,
    samples: 3,
    top1: 1 / 3,
    top5: 1,
    meanRank: 5 / 3,
    medianRank: 2,
    predictions,
    imageEmbeddings,
    classEmbeddings,
  };
  return { classNames, zeroShot, pictures: predictions.map(() => PNG) };
}

function report(): ReportData {
  const steps = Array.from({ length: 60 }, (_, i) => ({
    step: i + 1,
    generation: i < 30 ? 1 : 2,
    loss: 5 - i / 20,
    logitScale: 14 + i / 10,
    learningRate: 1e-3,
    seconds: i * 0.5 + (i < 30 ? 0 : 3),
    phaseSeconds: { forward: 0.1, backward: 0.3 },
    measures: i % 10 === 0 ? { 'image.std_ratio': 0.2 + i / 100 } : {},
  }));
  return {
    title: 'A run',
    summary: 'Two workers.',
    createdAt: '2026-01-01T00:00:00.000Z',
    headline: [{ label: 'top-1', value: '33.3 %' }],
    training: {
      globalBatch: 256,
      steps,
      evaluations: [20, 40, 60].map((step) => ({
        step,
        metrics: { 'val/zeroshot-val-top1': step / 100, 'val/clip_val_loss': 4 - step / 60, 'val/num_samples': 10 },
      })),
      marks: [{ step: 30, seconds: 14.7, label: 'one worker killed' }],
      gaps: [{ fromSeconds: 14.7, toSeconds: 18, label: 'From the kill to the next committed step' }],
    },
    evaluation: evaluationRecord(judgement(), 'set', 0),
    configYaml: 'run: x\n',
    environment: { node: 'v20' },
    credits: { set: 'Set by Somebody, MIT' },
  };
}

describe('evaluationRecord', () => {
  it('ranks pictures for each name by their own embeddings', () => {
    const record = evaluationRecord(judgement(), 'set', 0);
    expect(record.textToImageTop1).toBeCloseTo(1 / 3);
    expect(record.textToImageTop5).toBe(1);
    const pear = record.textToImage.find(({ query }) => query === 'pear');
    expect(pear?.found[0]).toMatchObject({ label: 'red <apple>', right: false });
    expect(record.textToImage.find(({ query }) => query === 'fig')?.found[0]).toMatchObject({
      label: 'fig',
      right: true,
    });
  });

  it('lists only mistakes as mistakes, with the drawing of what they were taken for', () => {
    const { confusions } = evaluationRecord(judgement(), 'set', 0);
    expect(
      confusions.map(({ picture, guess, guessPicture }) => [picture.label, guess.className, guessPicture?.label]),
    ).toEqual([
      ['red <apple>', 'pear', 'pear'],
      ['pear', 'red <apple>', 'red <apple>'],
    ]);
  });
});

describe('renderReport', () => {
  it('is one file that asks for nothing from anywhere', async () => {
    const page = await renderReport(report());
    expect(page).toContain('<!doctype html>');
    expect(page).not.toMatch(/(?:src|href)="(?!data:)/);
    expect(page).not.toMatch(/<script|@import|url\(/);
    expect(page).toContain("default-src 'none'");
  });

  it('escapes what comes from outside', async () => {
    const page = await renderReport(report());
    expect(page).toContain('red &lt;apple&gt;');
    expect(page).not.toContain('<apple>');
  });

  it('marks the kill in the curve, names the gap and credits the pictures', async () => {
    const page = await renderReport(report());
    expect(page).toContain('one worker killed');
    expect(page).toContain('3.3 s without a committed step');
    expect(page).toContain('Set by Somebody, MIT');
  });

  it('draws what was measured while it trained, and lists the last evaluation in full', async () => {
    const page = await renderReport(report());
    expect(page).toContain('Measured while it trained');
    for (const chart of ['image.std_ratio by step', 'val/zeroshot-val-top1 by step', 'val/clip_val_loss by step'])
      expect(page).toContain(chart);
    expect(page).toMatch(/after step 60.*val\/num_samples<\/th><td class="number">10</s);
    const { training, ...rest } = report();
    const { evaluations: _none, ...bare } = training;
    const steps = bare.steps.map(({ measures: _measures, ...step }) => step);
    expect(await renderReport({ ...rest, training: { ...bare, steps } })).not.toContain('Measured while it trained');
  });

  it('describes every picture and chart in words', async () => {
    const page = await renderReport(report());
    const images = page.match(/<img [^>]*>/g) ?? [];
    expect(images.length).toBeGreaterThan(0);
    expect(images.every((image) => / alt="[^"]+"/.test(image))).toBe(true);
    const charts = page.match(/<svg [^>]*>/g) ?? [];
    expect(charts.every((chart) => / aria-label="[^"]+"/.test(chart))).toBe(true);
  });

  it('renders a run without steps or evaluation', async () => {
    const { evaluation: _, ...rest } = report();
    const page = await renderReport({ ...rest, training: { globalBatch: 8, steps: [], marks: [], gaps: [] } });
    expect(page).toContain('Nothing was recorded');
  });
});

describe('lossCurveImage', () => {
  it('is an SVG file that needs nothing else, with the kill marked', async () => {
    const image = await lossCurveImage(report().training);
    expect(image).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    expect(image).toContain('one worker killed');
    expect(image).toContain('<style>');
    expect(image.match(/<polyline/g)).toHaveLength(2);
  });
});

describe('niceTicks', () => {
  it('gives round numbers inside the range', () => {
    expect(niceTicks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(niceTicks(0.13, 0.55, 5)).toHaveLength(4);
  });
});

describe('smooth', () => {
  it('keeps a constant constant from the first value on', () => {
    for (const value of smooth([2, 2, 2, 2], 20)) expect(value).toBeCloseTo(2);
  });

  it('follows a step within its span', () => {
    const smoothed = smooth([...Array(50).fill(0), ...Array(50).fill(1)], 10);
    expect(smoothed[49]).toBeCloseTo(0);
    expect(smoothed[99]).toBeGreaterThan(0.99);
  });
});
