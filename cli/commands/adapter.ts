import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { AdapterFile } from '../../transfer/adapters/adapter-file.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { formatBytes } from '../format.ts';
import { repeated } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import {
  addBackboneOptions,
  BACKBONE_ARGUMENT,
  type BackboneOptions,
  openBackbone,
} from '../transfer/backbone-options.ts';
import type { AdapterEvalOptions } from '../transfer/evaluate-adapters.ts';
import { addComputeOptions, type ComputeOptions, TransferSession } from '../transfer/session.ts';
import { adapterInWords, percent } from '../transfer/task-report.ts';

interface EvalOptions extends BackboneOptions, ComputeOptions, AdapterEvalOptions {}

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
  const evaluate = adapter
    .command('eval')
    .description('classify pictures by several adapters beside one backbone, which is in memory once')
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('--adapter <file>', 'an adapter; once for each task', repeated)
    .requiredOption(
      '--data <manifest>',
      'manifest (URL or path) of labelled pictures: one for all adapters, or one for each in their order',
      repeated,
    )
    .option(
      '--label-key <key>',
      'key of the samples’ meta that is the label: one for all, or one for each (default: their label)',
      repeated,
    )
    .option('-o, --out <folder>', 'figures and a report');
  addComputeOptions(addBackboneOptions(evaluate)).action(
    runCommand<EvalOptions>(async (context, [source = ''], options) => {
      const { evaluateAdapters } = await import('../transfer/evaluate-adapters.ts');
      const result = await TransferSession.run(context, options, async (session) => {
        const { backbone } = await openBackbone(context, source, options);
        return evaluateAdapters(session, backbone, options);
      });
      const rows = result.tasks.map((task) => [
        task.adapter,
        task.kind,
        task.classes,
        task.pictures,
        percent(task.accuracy),
        percent(task.classAccuracy),
      ]);
      const { output } = context;
      output.result(
        result,
        [
          output.table(['adapter', 'kind', 'classes', 'pictures', 'accuracy', 'mean over classes'], rows),
          `backbone ${result.backbone}: ${result.sharedParameters} numbers once, ${result.taskParameters} of the tasks’ own`,
          ...(result.files ?? []),
        ].join('\n'),
      );
      return EXIT.ok;
    }),
  );
  const merge = adapter
    .command('merge')
    .description('fold an adapter into the backbone’s weights (lora, conv) and write them with a head')
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
  const kind = adapterInWords(options);
  const parameters = [...tensors.values()].reduce((sum, { values }) => sum + values.length, 0);
  return { kind, parameters, classes: classes.length, backbone: `${backbone.origin} (${backbone.digest})` };
}

async function mergeAdapter(session: TransferSession, source: string, options: MergeOptions) {
  const { adaptedNetwork, readAdapterFile } = await import('../../transfer/adapters/adapter-file.ts');
  const { writeHeadFile } = await import('../../transfer/head-file.ts');
  const { exportBackbone } = await import('../transfer/tuned-files.ts');
  const file = await readAdapterFile(options.adapter);
  const { backbone } = await openBackbone(session.context, source, options);
  const network = session.own(adaptedNetwork(file, backbone), (one) => one.dispose());
  const merged = network.mergedBackbone(`${backbone.origin} with ${path.basename(options.adapter)}`);
  const files = await exportBackbone(options.out, merged);
  const head = path.join(options.out, 'head.safetensors');
  await writeHeadFile(head, {
    classes: file.classes,
    space: network.space,
    backbone: merged,
    tensors: network.readHead(),
  });
  return { kind: file.options.kind, classes: file.classes.length, backbone: backbone.origin, files: [...files, head] };
}
