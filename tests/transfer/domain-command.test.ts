import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addDomainCommand } from '../../cli/commands/domain.ts';
import { type DomainOptions, domain } from '../../cli/transfer/domain.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import { exportCovey } from '../../models/formats/covey-format.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { readSafetensors } from '../../models/formats/safetensors.ts';
import { commandContext, type RecordedContext } from '../support/command-context.ts';
import { fileStore, makeDataset } from '../support/datasets.ts';
import { parsedCommand } from '../support/parsed-command.ts';
import { smallClip } from './joint-models.ts';
import { colouredSamples, type Style } from './labelled-pictures.ts';
import { smallBackbone, smallResnet } from './small-backbone.ts';

let folder: string;
let backbone: string;
const manifests: Record<string, string> = {};
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'covey-domain-'));
  backbone = path.join(folder, 'backbone');
  await exportBackbone(backbone, smallBackbone());
  const pack = async (name: string, style: Style, change: (label: string) => string | undefined = (label) => label) => {
    const samples = await colouredSamples(14, style);
    const packed = samples.map(({ label, ...rest }) => {
      const changed = change(label);
      return { ...rest, ...(changed === undefined ? {} : { label: changed }) };
    });
    await makeDataset(fileStore(path.join(folder, name)), [packed]);
    manifests[name] = pathToFileURL(path.join(folder, name, 'manifest.json')).href;
  };
  await pack('source', 'plain');
  await pack('target', 'striped');
  await pack('bare', 'striped', () => undefined);
  await pack('wrong', 'striped', (label) => (label === 'red' ? 'blue' : label));
  await pack('other', 'striped', (label) => `dark ${label}`);
  await pack('single', 'plain', () => 'green');
  const broken = { image: new Uint8Array(40), caption: 'broken' };
  const whole = await colouredSamples(1, 'striped');
  for (const [name, samples] of Object.entries({ empty: [broken, broken], few: [...whole.slice(1), broken] })) {
    await makeDataset(fileStore(path.join(folder, name)), [samples]);
    manifests[name] = pathToFileURL(path.join(folder, name, 'manifest.json')).href;
  }
});
afterAll(() => rm(folder, { recursive: true }));

const out = (name: string) => path.join(folder, 'out', name);

interface Given {
  readonly source?: string;
  readonly target?: string;
  readonly out: string;
  readonly more?: readonly string[];
  readonly from?: string;
  readonly context?: RecordedContext;
}

/** The command's body with options as the command reads them. */
async function adapt({ source = 'source', target = 'target', more = [], from = backbone, ...given }: Given) {
  const { context = commandContext() } = given;
  const settings = ['--steps', '8', '--batch', '6', '--evaluate-every', '2', '--validation', '0.6', '--threads', '1'];
  const places = ['--source', manifests[source]!, '--target', manifests[target]!, '-o', out(given.out)];
  const argv = ['domain', from, ...places, ...settings, '--discriminator-width', '8', ...more];
  const { options } = await parsedCommand<DomainOptions>(addDomainCommand, argv);
  return TransferSession.run(context, options, (session) => domain(session, from, options));
}

/** Bytes of what a training leaves. */
async function weights(name: string): Promise<Buffer[]> {
  const files = ['head.safetensors', 'backbone/open_clip_model.safetensors', 'progress.safetensors'];
  return Promise.all(files.map((file) => readFile(path.join(out(name), file))));
}

describe('covey domain', () => {
  it('adapts, reports, and writes what finetune writes; run again it says the same', async () => {
    const more = ['--judge-target', '--target-test', manifests['target']!];
    const result = await adapt({ out: 'dann', more });
    expect(result).toMatchObject({ method: 'dann', classes: 3, steps: 8, targetHeldOut: 25, trains: 'all weights' });
    expect(result.judged.map(({ on, pictures }) => ({ on, pictures }))).toEqual([
      { on: 'held-out target', pictures: 25 },
      { on: 'target test', pictures: 42 },
    ]);
    expect(result.domainAccuracy.before).toBeGreaterThan(0.8);
    expect(result.proxyADistance.before).toBeCloseTo(2 * (2 * result.domainAccuracy.before! - 1), 12);
    const report = await readFile(path.join(out('dann'), 'report.html'), 'utf8');
    for (const part of ['Principal components', 't-SNE', 'The adversary', 'data:image/png', 'target, with what']) {
      expect(report).toContain(part);
    }
    expect(report.match(/<circle/g)!.length).toBeGreaterThan(4 * 40);
    const head = readSafetensors(await readFile(path.join(out('dann'), 'head.safetensors')));
    expect(JSON.parse(head.metadata['classes']!)).toEqual(['blue', 'green', 'red']);
    const tuned = await loadPretrainedPath(path.join(out('dann'), 'backbone'));
    expect(tuned.kind).toBe('backbone');
    const before = await weights('dann');
    expect(await adapt({ out: 'dann', more })).toEqual(result);
    expect(await weights('dann')).toEqual(before);
  });

  it('goes on after an interruption, and ends with the bits of one that was left alone', async () => {
    // Two looks a step: in the fifth.
    const interrupted = commandContext({ interruptAtLook: 11 });
    await expect(adapt({ out: 'cut', context: interrupted })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(existsSync(path.join(out('cut'), 'result.json'))).toBe(false);
    const context = commandContext();
    await adapt({ out: 'cut', context });
    expect(context.said()).toMatch(/going on from step [246] of 8/);
    await adapt({ out: 'whole' });
    expect(await weights('cut')).toEqual(await weights('whole'));
  });

  it('comes to the same bits whatever the target’s labels say, and without any', async () => {
    const more = ['--method', 'mmd'];
    const given = await adapt({ out: 'labels', more });
    await adapt({ out: 'wrong', target: 'wrong', more });
    await adapt({ out: 'bare', target: 'bare', more });
    // Another manifest names the samples alike.
    expect(await weights('wrong')).toEqual(await weights('labels'));
    expect(await weights('bare')).toEqual(await weights('labels'));
    expect(given.judged).toEqual([]);
  });

  it('takes a ResNet, and adapters; with `none` it does not look at the target', async () => {
    const resnet = path.join(folder, 'resnet');
    await exportBackbone(resnet, smallResnet());
    const more = ['--method', 'coral', '--steps', '2'];
    expect(await adapt({ out: 'resnet', from: resnet, more })).toMatchObject({ method: 'coral', steps: 2 });
    // open_clip has no words for it: covey's own files, which are a backbone again.
    expect(await loadPretrainedPath(path.join(out('resnet'), 'backbone'))).toMatchObject({
      vision: { kind: 'resnet' },
    });
    const adapted = await adapt({ out: 'lora', more: ['--adapter', 'lora', '--rank', '2', '--steps', '2'] });
    expect(adapted.files[0]).toMatch(/adapter\.safetensors$/);
    const none = await adapt({ out: 'none', more: ['--method', 'none', '--steps', '2'] });
    expect(none).toMatchObject({ method: 'none', adversaryAccuracy: null, targetInformation: null });
  });

  it('begins as the classifier of texts, by templates of a file as by the same ones alone', async () => {
    const clip = path.join(folder, 'clip');
    await exportCovey(clip, await smallClip());
    const templates = path.join(folder, 'templates.txt');
    await writeFile(templates, 'a {}\nthe {}\n');
    const context = commandContext();
    const run = (...words: string[]) => {
      const more = ['--method', 'none', '--steps', '2', '--head', 'zeroshot', ...words];
      return adapt({ out: 'words', from: clip, more, context });
    };
    const result = await run('--templates', templates);
    expect(await run('--template', 'a {}', '--template', 'the {}')).toEqual(result);
    expect(context.said()).not.toMatch(/longer than the model/);
    await expect(run('--template', 'a very long and winding text about a {}')).rejects.toThrow(
      /another adaptation is there \(templates differ\)/,
    );
    expect(context.said()).toMatch(/3 texts of 1 templates are longer than the model’s context and lose their end/);
  });

  it('refuses what it cannot learn from, and says what to do', async () => {
    const refused = (given: Omit<Given, 'out'>) => expect(adapt({ out: 'refused', ...given })).rejects;
    await refused({ source: 'bare' }).toThrow(/none of the 42 samples of test has a `label`/);
    await refused({ source: 'single' }).toThrow(/there is a single class, green/);
    await refused({ source: 'empty' }).toThrow(/none of the 2 samples/);
    await refused({ target: 'empty' }).toThrow(/none of its 2 pictures can be read/);
    await refused({ target: 'few' }).toThrow(/2 of its 3 pictures can be read, at least 4 are needed/);
    await refused({ more: ['--template', '{}'] }).toThrow(/--template belongs to --head zeroshot/);
    await refused({ more: ['--templates', 'icons'] }).toThrow(/--templates belongs to --head zeroshot/);
    const words = (...more: string[]) => refused({ more: ['--head', 'zeroshot', ...more] });
    await words('--template', 'a photo').toThrow(/--template: it has no \{\} for the class/);
    await words('--templates', 'none.txt').toThrow(/no such file; or name a set: name, openai-80/);
    await words('--templates', 'name', '--template', '{}').toThrow(/is there already \(the set name\)/);
    await refused({ more: ['--alignment-weight', '0'] }).toThrow(/Cannot adapt: weight: /);
    await refused({ more: ['--head-only'] }).toThrow(/with the head alone trained no feature moves/);
    await refused({ more: ['--head-steps', '8'] }).toThrow(/keep --head-steps below --steps/);
    await refused({ target: 'bare', more: ['--judge-target'] }).toThrow(/none of the 42 samples of test has a `label`/);
    await refused({ target: 'other', more: ['--judge-target'] }).toThrow(/42 labels are not among the 3 classes/);
    expect(existsSync(out('refused'))).toBe(false);
    // Of no interest where nobody judges by them.
    await adapt({ out: 'dark', target: 'other', more: ['--steps', '2'] });
    await expect(adapt({ out: 'dark', target: 'target', more: ['--steps', '2'] })).rejects.toThrow(
      /another adaptation is there \(datasets differ\)/,
    );
  });

  it('warns of a source that is the target', async () => {
    const context = commandContext();
    await adapt({ out: 'same', target: 'source', more: ['--steps', '2'], context });
    expect(context.said()).toMatch(/source and target are the same dataset/);
  });
});
