import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import type { TextModel } from '../../transfer/zero-shot-head.ts';
import type { WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import type { CommandContext } from '../context.ts';
import { storeOpener } from '../open-store.ts';
import { weightsOption, wholeNumber } from '../option-values.ts';
import { findCheckpoint, type StoredRunOptions, withStoredRun } from '../stored-run.ts';

/** Options of every command that starts from a backbone. */
export interface BackboneOptions extends StoredRunOptions {
  readonly step?: number;
  readonly weights: WeightKind;
  readonly imageSize?: number;
}

export function addBackboneOptions(command: Command): Command {
  return command
    .option('--step <n>', 'checkpoint of this step (default: the newest that verifies)', wholeNumber(0))
    .addOption(weightsOption())
    .option('--store <url>', 'read the run from this store directly, without a coordinator')
    .option(
      '--image-size <n>',
      'side of the pictures; positions are resized to it (default: as trained)',
      wholeNumber(1),
    );
}

export const BACKBONE_ARGUMENT =
  'name of a run, or a folder or file of weights (open_clip, transformers; one with a / in it)';

export interface OpenedBackbone {
  readonly backbone: Backbone;
  /** The whole model, where it has a text tower. @param instead what to do where it has none, for the message */
  readonly text: (instead: string) => Promise<TextModel>;
}

/** The backbone of a run's checkpoint or of exported files. */
export async function openBackbone(
  context: CommandContext,
  source: string,
  options: BackboneOptions,
): Promise<OpenedBackbone> {
  const { atImageSize } = await import('../../transfer/backbone.ts');
  const opened = source.includes('/') ? await fromFiles(source) : await fromRun(context, source, options);
  if (options.imageSize === undefined) return opened;
  return { ...opened, backbone: atImageSize(opened.backbone, options.imageSize) };
}

async function fromFiles(place: string): Promise<OpenedBackbone> {
  const { loadPretrainedPath } = await import('../../models/formats/load-pretrained.ts');
  const { pretrainedBackbone } = await import('../../transfer/backbone.ts');
  const model = await loadPretrainedPath(place);
  return {
    backbone: pretrainedBackbone(model, `files ${place}`),
    text: async (instead) => {
      if (model.kind === 'clip') return model;
      throw withoutTexts(place, instead);
    },
  };
}

async function fromRun(context: CommandContext, name: string, options: BackboneOptions): Promise<OpenedBackbone> {
  const { checkpointBackbone } = await import('../../transfer/backbone.ts');
  const { readBuffers, readWeights } = await import('../../worker/checkpoint/read-checkpoint.ts');
  const { openTokenizer } = await import('../../worker/data/open-tokenizer.ts');
  const { trainsBothTowers } = await import('../../worker/objectives/objective-inputs.ts');
  const { resolveModelConfig } = await import('../../models/model-config.ts');
  const { signal } = context;
  return withStoredRun(context, name, options, async ({ config, store }) => {
    const manifest = await findCheckpoint({ name, config, store }, options.step, signal);
    const source = { config, store, manifest, weights: options.weights };
    const backbone = await checkpointBackbone(source, signal);
    const captions = trainsBothTowers(config);
    const parameters = captions ? await readWeights(store, manifest, options.weights, signal) : undefined;
    const stored = parameters && new Map([...(await readBuffers(store, manifest, signal)), ...parameters]);
    return {
      backbone,
      text: async (instead) => {
        if (stored === undefined) throw withoutTexts(`run ${name}`, instead);
        const model = resolveModelConfig(config.model);
        const opener = async (url: string) => storeOpener(context)(url);
        const tokenizer = await openTokenizer(config.data.tokenizer, model.text.contextLength, opener, signal);
        const weights = new Map([...stored].map(([key, { values }]) => [key, values]));
        return { config: model, weights, tokenizer };
      },
    };
  });
}

function withoutTexts(what: string, instead: string): CoveyError {
  return new CoveyError(
    'UNSUPPORTED',
    `Cannot make class weights of texts: ${what} was trained without texts and has no text tower; ${instead}`,
  );
}
