import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addAdaptCommand } from '../../cli/commands/adapt.ts';
import { addAdapterCommand } from '../../cli/commands/adapter.ts';
import { addFinetuneCommand } from '../../cli/commands/finetune.ts';
import { openBackbone } from '../../cli/transfer/backbone-options.ts';
import { type AdapterEvalOptions, evaluateAdapters } from '../../cli/transfer/evaluate-adapters.ts';
import { type FinetuneOptions, finetune } from '../../cli/transfer/finetune.ts';
import { splitLabels } from '../../cli/transfer/label-options.ts';
import { TransferSession } from '../../cli/transfer/session.ts';
import { recipeOf } from '../../cli/transfer/tune-options.ts';
import { exportBackbone } from '../../cli/transfer/tuned-files.ts';
import type { ModelConfig } from '../../common/config/run-config.ts';
import { exportCovey } from '../../models/formats/covey-format.ts';
import { loadPretrainedPath } from '../../models/formats/load-pretrained.ts';
import { visionOf } from '../../models/formats/pretrained.ts';
import { readSafetensors } from '../../models/formats/safetensors.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import { loadTokenizer } from '../../models/tokenizer/tokenizer.ts';
import { adaptedNetwork, readAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import { atImageSize, pretrainedBackbone } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { type Evaluation, evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import { zeroShotHead } from '../../transfer/zero-shot-head.ts';
import { smallWeights } from '../models/small-model.ts';
import { commandContext } from '../support/command-context.ts';
import { fileStore, makeDataset, temporaryFolder } from '../support/datasets.ts';
import { parsedCommand } from '../support/parsed-command.ts';
import { colouredSamples } from './labelled-pictures.ts';
import { SMALL_VISION, smallBackbone } from './small-backbone.ts';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let manifest: string;
let backbone: string;
const at = (...parts: string[]) => path.join(folder.path, ...parts);
const STEPS = ['--steps', '4', '--batch', '8', '--evaluate-every', '2', '--threads', '1'];

beforeAll(async () => {
  folder = await temporaryFolder();
  const samples = await colouredSamples(6);
  await makeDataset(fileStore(at('data')), [samples.slice(0, 9), samples.slice(9)]);
  manifest = pathToFileURL(at('data', 'manifest.json')).href;
  backbone = at('backbone');
  await exportBackbone(backbone, smallBackbone());
});
afterAll(() => folder.remove());

async function finetuned(add: typeof addFinetuneCommand, ...argv: string[]) {
  const { args, options } = await parsedCommand<FinetuneOptions>(add, argv);
  return TransferSession.run(commandContext(), options, (session) => finetune(session, args[0]!, options));
}

describe('covey finetune --head zeroshot at another size of picture', () => {
  const text = { contextLength: 16, vocabSize: 49_408, width: 8, heads: 2, layers: 1, mlpRatio: 2 };
  const CLIP: ModelConfig = { embedDim: 12, quickGelu: false, vision: SMALL_VISION, text };
  const RESNET: ModelConfig = {
    ...CLIP,
    vision: { kind: 'modified-resnet', imageSize: 32, blocks: [1, 1, 1, 1], width: 4, headWidth: 32 },
  };

  it.each([
    ['a ViT', CLIP, 24, ['visual.proj']],
    ['CLIP’s ResNet', RESNET, 64, ['visual.attnpool.c_proj.weight', 'visual.attnpool.c_proj.bias']],
  ] as const)(
    'starts as the zero-shot classifier and keeps the projection: %s',
    async (name, model, side, projection) => {
      const config = resolveModelConfig(model);
      const tokenizer = await loadTokenizer('clip', config.text.contextLength);
      const preprocess = { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] } as const;
      const whole = { kind: 'clip', config, weights: smallWeights(config), preprocess, tokenizer } as const;
      await exportCovey(at(name), whole);
      const tuned = at(`${name} tuned`);
      await writeFile(at('templates.txt'), 'a {} square\n{}\n');
      const words = ['--templates', at('templates.txt'), '--template', 'the {}'];
      const zero = ['--head', 'zeroshot', ...words, '--image-size', `${side}`, '--wise'];
      const argv = ['finetune', at(name), '--data', manifest, ...zero, ...STEPS, '-o', tuned];
      const result = await finetuned(addFinetuneCommand, ...argv);
      expect(result).toMatchObject({ classes: 3, steps: 4, judgedOn: 'validation' });
      // Before anything is trained, α = 0, it is what the texts alone say at that size.
      const { options } = await parsedCommand<FinetuneOptions>(addFinetuneCommand, argv);
      const accuracy = await TransferSession.run(commandContext(), options, async (session) => {
        const { engine } = session;
        const source = atImageSize(pretrainedBackbone(whole, 'a test'), side);
        const network = new TransferNetwork(source, { classes: 3, space: 'embedding', seed: 0, precision: 'fp32' });
        const said = { classNames: ['blue', 'green', 'red'], templates: ['a {} square', '{}', 'the {}'] };
        network.setHead(await zeroShotHead(whole, said, engine));
        const shown = { imageSide: side, augment: recipeOf(options).augment, seed: 0 };
        const { set, pictures } = await session.openLabelled(manifest, {}, shown);
        const { validation } = splitLabels(set.samples, options);
        const evaluated = await evaluateNetwork(validation, 3, { engine, network, pictures });
        network.dispose();
        return evaluated.accuracy;
      });
      expect(result.wise![0]).toEqual({ alpha: 0, accuracy });
      const { templates } = JSON.parse(await readFile(path.join(tuned, 'task.json'), 'utf8')) as {
        templates: string[];
      };
      expect(templates).toEqual(['a {} square', '{}', 'the {}']);
      const { tensors, metadata } = readSafetensors(await readFile(path.join(tuned, 'head.safetensors')));
      expect(metadata['space']).toBe('embedding');
      expect([...tensors.keys()]).toEqual([...projection, 'head.weight', 'head.bias']);
      expect(visionOf(await loadPretrainedPath(path.join(tuned, 'backbone'))).imageSize).toBe(side);
    },
  );
});

describe('covey adapt and covey adapter eval', () => {
  it('trains bottleneck adapters unless told otherwise, and leaves the backbone out of its file', async () => {
    const { options } = await parsedCommand<FinetuneOptions>(addAdaptCommand, ['adapt', 'x', '--data', 'y', '-o', 'z']);
    expect(options).toMatchObject({ adapter: 'bottleneck', width: 16, lr: 5e-3, head: 'random' });
    const shared = ['--data', manifest, ...STEPS];
    const result = await finetuned(addAdaptCommand, 'adapt', backbone, ...shared, '--width', '4', '-o', at('task-1'));
    expect(result).toMatchObject({ method: 'bottleneck', classes: 3, steps: 4 });
    const file = await readAdapterFile(at('task-1', 'adapter.safetensors'));
    expect(file.options).toEqual({ kind: 'bottleneck', width: 4 });
    const again = await finetuned(
      addFinetuneCommand,
      'finetune',
      backbone,
      ...shared,
      '--adapter',
      'bottleneck',
      '--width',
      '4',
      '--lr',
      '5e-3',
      '-o',
      at('task-1b'),
    );
    expect(again.accuracy).toBe(result.accuracy);
    expect((await readAdapterFile(at('task-1b', 'adapter.safetensors'))).tensors).toEqual(file.tensors);
  });

  it('classifies by every adapter beside one backbone, to the bit as each does alone', async () => {
    const shared = ['--data', manifest, ...STEPS];
    await finetuned(
      addAdaptCommand,
      'adapt',
      backbone,
      ...shared,
      '--adapter',
      'lora',
      '--rank',
      '2',
      '-o',
      at('task-2'),
    );
    const files = [at('task-1', 'adapter.safetensors'), at('task-2', 'adapter.safetensors')];
    const argv = ['adapter', 'eval', backbone, ...files.flatMap((file) => ['--adapter', file]), '--data', manifest];
    const { args, options } = await parsedCommand<FinetuneOptions & AdapterEvalOptions>(addAdapterCommand, argv);
    const alone: Evaluation[] = [];
    const report = at('adapters');
    const together = await TransferSession.run(commandContext(), { threads: 1 }, async (session) => {
      const opened = await openBackbone(session.context, args[0]!, options);
      for (const file of files) {
        const network = adaptedNetwork(await readAdapterFile(file), opened.backbone);
        const shown = { imageSide: 16, augment: { scale: [1, 1], ratio: [1, 1], flip: 0 } as never, seed: 0 };
        const { set, pictures } = await session.openLabelled(manifest, {}, shown);
        alone.push(await evaluateNetwork(set.samples, 3, { engine: session.engine, network, pictures }));
        network.dispose();
      }
      const told = await evaluateAdapters(session, opened.backbone, { ...options, out: report });
      const { files: written, ...figures } = told;
      expect(await evaluateAdapters(session, opened.backbone, options)).toEqual(figures);
      expect(written).toEqual([path.join(report, 'adapters.html')]);
      return figures;
    });
    expect(together.tasks.map(({ kind, pictures }) => [kind, pictures])).toEqual([
      ['bottleneck, width 4', 18],
      ['lora, rank 2', 18],
    ]);
    expect(together.tasks.map(({ accuracy, classAccuracy }) => ({ accuracy, classAccuracy }))).toEqual(
      alone.map(({ accuracy, classAccuracy }) => ({ accuracy, classAccuracy })),
    );
    expect(together.taskParameters).toBeLessThan(together.sharedParameters);
    expect(JSON.parse(await readFile(path.join(report, 'adapters.json'), 'utf8'))).toEqual(together);
    const page = await readFile(path.join(report, 'adapters.html'), 'utf8');
    // Twelve pictures of each task; a bar as long as the accuracy; every class of each task.
    expect(page.match(/data:image\/png/g)).toHaveLength(24);
    for (const name of ['blue', 'green', 'red']) {
      expect(page.match(new RegExp(`<figcaption>${name} `, 'g'))).toHaveLength(8);
    }
    expect(page.match(/(right|taken for \w+), \d+\.\d %/g)).toHaveLength(24);
    together.tasks.forEach(({ accuracy }, i) => {
      expect(page).toContain(`<h2>${files[i]}</h2>`);
      expect(page).toContain(`<span class="tone-0" style="width:${(100 * accuracy).toFixed(2)}%">`);
    });
    expect(page.match(/<th>green<\/th>/g)).toHaveLength(2);
  });

  it('refuses adapters and data that do not go together', async () => {
    const file = at('task-1', 'adapter.safetensors');
    const attempt = (adapter: string[], data: string[], other = smallBackbone()) =>
      TransferSession.run(commandContext(), { threads: 1 }, (session) =>
        evaluateAdapters(session, other, { adapter, data }),
      );
    await expect(attempt([file, file, file], [manifest, manifest])).rejects.toThrow(/3 adapters and 2 of --data/);
    await expect(attempt([file], [manifest], smallBackbone(9))).rejects.toThrow(/it was trained in files/);
  });
});
