import { readFile, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addCompareCommand } from '../../cli/commands/compare.ts';
import { addFinetuneCommand } from '../../cli/commands/finetune.ts';
import { addProbeCommand } from '../../cli/commands/probe.ts';
import { type CompareOptions, compareBackbone } from '../../cli/transfer/compare.ts';
import { comparisonTable } from '../../cli/transfer/compare-report.ts';
import { type FinetuneOptions, finetune } from '../../cli/transfer/finetune.ts';
import { type ProbeOptions, probe } from '../../cli/transfer/probe.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, makeDataset, temporaryFolder } from '../support/datasets.ts';
import { parsedCommand } from '../support/parsed-command.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let manifest: string;
const at = (...parts: string[]) => path.join(folder.path, ...parts);
const STEPS = ['--steps', '4', '--batch', '8', '--evaluate-every', '2', '--threads', '1'];

beforeAll(async () => {
  folder = await temporaryFolder();
  await makeDataset(fileStore(at('data')), [await colouredSamples(8)]);
  manifest = pathToFileURL(at('data', 'manifest.json')).href;
  await exportBackbone(at('backbone'), smallBackbone());
});
afterAll(() => folder.remove());

async function compared(...more: string[]) {
  const argv = ['compare', at('backbone'), '--data', manifest, '-o', at('compared'), ...STEPS, ...more];
  const { args, options } = await parsedCommand<CompareOptions>(addCompareCommand, argv);
  const context = commandContext();
  const result = await TransferSession.run(context, options, (session) => compareBackbone(session, args[0]!, options));
  return { result, said: context.said() };
}

const CELLS = ['scratch-0.4-0', 'probe-0.4-0', 'finetune-0.4-0', 'scratch-1-0', 'probe-1-0', 'finetune-1-0'];
const times = () =>
  Promise.all(CELLS.map(async (cell) => (await stat(at('compared', 'cells', cell, 'cell.json'))).mtimeMs));

describe('covey compare', () => {
  it('has one per cent, ten and all of the labels unless told otherwise, and refuses what is no share', async () => {
    const needed = ['compare', 'x', '--data', 'y', '-o', 'z'];
    const { options } = await parsedCommand<CompareOptions>(addCompareCommand, needed);
    expect(options).toMatchObject({ fractions: [0.01, 0.1, 1], methods: ['scratch', 'probe', 'finetune'], seeds: 1 });
    const attempt = (...more: string[]) => parsedCommand<CompareOptions>(addCompareCommand, [...needed, ...more]);
    await expect(attempt('--fractions', '0.1,2')).rejects.toThrow(/write shares from 0 to 1/);
    await expect(attempt('--methods', 'probe,magic')).rejects.toThrow(/there are scratch, probe, finetune/);
  });

  it('says of every method and share what the single commands say', async () => {
    const { result } = await compared('--fractions', '1,0.4');
    expect(result.rows.map(({ method, fraction, pictures }) => [method, fraction, pictures])).toEqual([
      ['scratch', 0.4, 6],
      ['scratch', 1, 18],
      ['probe', 0.4, 6],
      ['probe', 1, 18],
      ['finetune', 0.4, 6],
      ['finetune', 1, 18],
    ]);
    const accuracy = (method: string, fraction: number) =>
      result.rows.find((row) => row.method === method && row.fraction === fraction)!.accuracy;
    const shared = ['--data', manifest, '--fraction', '0.4'];
    const tuned = async (...more: string[]) => {
      const argv = ['finetune', at('backbone'), ...shared, ...STEPS, ...more];
      const { args, options } = await parsedCommand<FinetuneOptions>(addFinetuneCommand, argv);
      return TransferSession.run(commandContext(), options, (session) => finetune(session, args[0]!, options));
    };
    expect(accuracy('finetune', 0.4)).toBe((await tuned('-o', at('tuned'))).accuracy);
    const scratch = await tuned('--from-scratch', '--backbone-lr', '1', '-o', at('scratch'));
    expect(accuracy('scratch', 0.4)).toBe(scratch.accuracy);
    const argv = ['probe', at('backbone'), ...shared, '-o', at('probe'), '--threads', '1'];
    const { args, options } = await parsedCommand<ProbeOptions>(addProbeCommand, argv);
    const probed = await TransferSession.run(commandContext(), options, (session) => probe(session, args[0]!, options));
    expect(accuracy('probe', 0.4)).toBe(probed.accuracy);
    const { head, rows } = comparisonTable(result);
    expect(head).toEqual(['', '40 % (6 pictures)', '100 % (18 pictures)']);
    const best = Math.max(accuracy('probe', 1), accuracy('finetune', 1)) - accuracy('scratch', 1);
    expect(rows.at(-1)![2]).toBe(`${best < 0 ? '−' : '+'}${Math.abs(100 * best).toFixed(1)} points`);
    const page = await readFile(at('compared', 'report.html'), 'utf8');
    expect(page).toContain('<polyline class="line-main"');
    expect(page).toContain('40 % (6 pictures)');
    const { rows: ofClasses } = comparisonTable(result, 'classAccuracy');
    const scratchRow = result.rows.find(({ method, fraction }) => method === 'scratch' && fraction === 0.4)!;
    expect(scratchRow.classAccuracy).toBe(scratch.classAccuracy);
    expect(ofClasses[0]![1]).toBe(`${(100 * scratch.classAccuracy).toFixed(1)} %`);
  });

  it('computes nothing twice, goes on to the same result where a cell is missing, and refuses another comparison', async () => {
    const before = await times();
    const { result: first } = await compared('--fractions', '0.4,1');
    expect(await times()).toEqual(before);
    await rm(at('compared', 'cells', 'finetune-1-0', 'cell.json'));
    const { result: again, said } = await compared('--fractions', '0.4,1');
    expect(again).toEqual(first);
    expect((await times()).slice(0, -1)).toEqual(before.slice(0, -1));
    expect(said).toContain('6 of 6: fine-tuned, 1 of the labels, seed 0');
    await expect(stat(at('compared', 'cells', 'finetune-1-0', 'progress.safetensors'))).rejects.toThrow(/ENOENT/);
    await expect(compared('--fractions', '0.5,1')).rejects.toThrow(/another comparison is there \(fractions differ\)/);
  });

  it('repeats with other seeds and says how far they are apart', async () => {
    const argv = ['compare', at('backbone'), '--data', manifest, '-o', at('seeds'), '--methods', 'probe'];
    const { args, options } = await parsedCommand<CompareOptions>(addCompareCommand, [
      ...argv,
      ...['--fractions', '0.2', '--seeds', '3', '--threads', '1'],
    ]);
    const result = await TransferSession.run(commandContext(), options, (session) =>
      compareBackbone(session, args[0]!, options),
    );
    const cells = (JSON.parse(await readFile(at('seeds', 'result.json'), 'utf8')) as { cells: { accuracy: number }[] })
      .cells;
    expect(cells).toHaveLength(3);
    const accuracies = cells.map(({ accuracy }) => accuracy);
    const [row] = result.rows;
    expect(row!.accuracy).toBeCloseTo(accuracies.reduce((sum, one) => sum + one, 0) / 3, 12);
    expect(row!.accuracyRange).toEqual([Math.min(...accuracies), Math.max(...accuracies)]);
  });
});
