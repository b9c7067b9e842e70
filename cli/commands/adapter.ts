import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { AdapterFile } from '../../transfer/adapters/adapter-file.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { formatBytes } from '../format.ts';
import { runCommand } from '../run-command.ts';
import {
  addBackboneOptions,
  BACKBONE_ARGUMENT,
  type BackboneOptions,
  openBackbone,
} from '../transfer/backbone-options.ts';
import { addComputeOptions, type ComputeOptions, TransferSession } from '../transfer/session.ts';

interface MergeOptions extends BackboneOptions, ComputeOptions {
  readonly adapter: string;
  readonly out: string;
}

export function addAdapterCommand(program: Command): void {
  const adapter = program.command('adapter').description('small files that make one backbone do many tasks');
  adapter
    .command('ls')
    .description('list adapters: what they are, for which backbone and classes')
    .argument('<place...>', 'files, or folders to search')
    .action(runCommand<object>((context, places) => list(context, places)));
  const merge = adapter
    .command('merge')
    .description(
      'fold an adapter into the backbone’s weights (lora, conv) and write them as open_clip files with a head',
    )
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('--adapter <file>', 'the adapter')
    .requiredOption('-o, --out <folder>', 'folder to write');
  addComputeOptions(addBackboneOptions(merge)).action(
    runCommand<MergeOptions>(async (context, [source = ''], options) => {
      const result = await TransferSession.run(context, options, (session) => mergeAdapter(session, source, options));
      context.output.result(
        result,
        [`${result.kind}: ${result.classes} classes, merged into ${result.backbone}`, ...result.files].join('\n'),
      );
      return EXIT.ok;
    }),
  );
}

interface Listed {
  readonly file: string;
  readonly bytes: number;
  readonly kind: string;
  readonly parameters: number;
  readonly classes: number;
  readonly backbone: string;
}

async function list({ output }: CommandContext, places: readonly string[]) {
  const { readAdapterFile } = await import('../../transfer/adapters/adapter-file.ts');
  const found: Listed[] = [];
  for (const place of places) {
    const isFolder = (await stat(place).catch(() => undefined))?.isDirectory() ?? false;
    const names = isFolder ? await readdir(place, { recursive: true }) : [place];
    for (const name of names.filter((one) => one.endsWith('.safetensors')).sort()) {
      const file = isFolder ? path.join(place, name) : name;
      const read = await readAdapterFile(file).catch((thrown: unknown) => {
        // In a folder other weights are expected; a file that was named is not.
        if (isFolder && CoveyError.is(thrown, 'DATA_CORRUPT')) return undefined;
        throw thrown;
      });
      if (read !== undefined) found.push({ file, bytes: (await stat(file)).size, ...described(read) });
    }
  }
  const rows = found.map(({ file, bytes, kind, parameters, classes, backbone }) => [
    file,
    kind,
    parameters,
    formatBytes(bytes),
    classes,
    backbone,
  ]);
  output.result(found, output.table(['adapter', 'kind', 'parameters', 'size', 'classes', 'backbone'], rows));
  return EXIT.ok;
}

function described({ options, classes, backbone, tensors }: AdapterFile) {
  const kind =
    options.kind === 'lora'
      ? `lora, rank ${options.rank}`
      : options.kind === 'bottleneck'
        ? `bottleneck, width ${options.width}`
        : `conv, ${options.placement}`;
  const parameters = [...tensors.values()].reduce((sum, { values }) => sum + values.length, 0);
  return { kind, parameters, classes: classes.length, backbone: `${backbone.origin} (${backbone.digest})` };
}

async function mergeAdapter(session: TransferSession, source: string, options: MergeOptions) {
  const { expectBackbone, putAdapter, readAdapterFile } = await import('../../transfer/adapters/adapter-file.ts');
  const { writeHeadFile } = await import('../../transfer/head-file.ts');
  const { TransferNetwork } = await import('../../transfer/network.ts');
  const { exportBackbone } = await import('../transfer/tuned-files.ts');
  const file = await readAdapterFile(options.adapter);
  const { backbone } = await openBackbone(session.context, source, options);
  expectBackbone(file, backbone);
  const network = session.own(
    new TransferNetwork(backbone, {
      classes: file.classes.length,
      space: file.tensors.has('visual.proj') ? 'embedding' : 'features',
      adapter: file.options,
      seed: 0,
      precision: 'fp32',
    }),
    (one) => one.dispose(),
  );
  putAdapter(network, file);
  const merged = network.mergedBackbone(`${backbone.origin} with ${path.basename(options.adapter)}`);
  const files = await exportBackbone(options.out, merged);
  const head = path.join(options.out, 'head.safetensors');
  const tensors = network.read((name) => name.startsWith('head.') || name === 'visual.proj');
  await writeHeadFile(head, { classes: file.classes, space: network.space, backbone: merged, tensors });
  return { kind: file.options.kind, classes: file.classes.length, backbone: backbone.origin, files: [...files, head] };
}
