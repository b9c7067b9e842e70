import path from 'node:path';
import { writeTogether } from '../../common/whole-file.ts';
import { exportCovey } from '../../models/formats/covey-format.ts';
import { misfit } from '../../models/formats/export-formats.ts';
import { exportOpenClip } from '../../models/formats/open-clip.ts';
import { adapterFileOf, writeAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { writeHeadFile } from '../../transfer/head-file.ts';
import type { TransferNetwork } from '../../transfer/network.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';

export interface TunedNetwork {
  readonly recipe: TuneRecipe;
  readonly network: TransferNetwork;
  /** Before the training. */
  readonly backbone: Backbone;
  readonly classNames: readonly string[];
  /** How the new backbone came about, in words: `fine-tuned`. */
  readonly how: string;
}

/** The adapter's file with its head; or the head's file, and the backbone's folder where that was trained. @returns their paths */
export async function writeTuned(out: string, tuned: TunedNetwork): Promise<string[]> {
  const { recipe, network, backbone, classNames, how } = tuned;
  if (recipe.adapter !== undefined) {
    const file = path.join(out, 'adapter.safetensors');
    await writeAdapterFile(file, adapterFileOf(network, recipe.adapter, classNames));
    return [file];
  }
  const head = path.join(out, 'head.safetensors');
  const after = recipe.method === 'full' ? network.mergedBackbone(`${how} ${backbone.origin}`) : backbone;
  await writeHeadFile(head, {
    classes: classNames,
    space: network.space,
    backbone: after,
    tensors: network.readHead(),
  });
  if (recipe.method !== 'full') return [head];
  const folder = path.join(out, 'backbone');
  await exportBackbone(folder, after);
  return [folder, head];
}

/** As open_clip files, or covey's own for a tower that open_clip has no words for; every transfer command takes both as a backbone again. */
export async function exportBackbone(folder: string, backbone: Backbone): Promise<string[]> {
  const { vision, quickGelu, mean, std } = backbone;
  const weights = new Map([...backbone.weights].map(([name, { values }]) => [name, values]));
  const model = { kind: 'backbone', vision, quickGelu, weights, preprocess: { mean, std } } as const;
  const write = misfit('open_clip', model) === undefined ? exportOpenClip : exportCovey;
  return writeTogether(folder, (staging) => write(staging, model));
}

/** What was trained, in words. */
export function methodOf({ method, adapter }: TuneRecipe): string {
  if (adapter !== undefined) return adapter.kind === 'conv' ? `conv adapters, ${adapter.placement}` : adapter.kind;
  return method === 'head' ? 'the head alone' : 'all weights';
}
