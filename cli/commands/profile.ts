import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { fromFileError } from '../../common/file-errors.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { type EngineChoice, engineOption, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { StatusLine } from '../status-line.ts';
import { SET_OPTION } from './config.ts';

interface ProfileOptions {
  readonly steps: number;
  readonly warmup: number;
  readonly threads?: number;
  readonly precision?: 'fp32' | 'bf16';
  readonly batch?: number;
  readonly lanes?: number;
  readonly captionTokens?: number;
  readonly engine: EngineChoice;
  readonly set?: readonly string[];
  readonly trace?: string;
  readonly top: number;
  readonly depth: number;
  readonly inner?: boolean;
}

const HELP = `
Examples:
  covey profile                                    the demo's model
  covey profile run.yaml --set train.lanes=1       a run's model, batch and precision
  covey profile ViT-B-32 --batch 8 --precision bf16 --threads 1
  covey profile --trace step.json                  open it at https://ui.perfetto.dev
  covey profile --json --steps 10 > profile.json   the same figures for a program

The inputs are noise in the run's shapes: neither data nor a coordinator is needed. docs/profiling.md tells how to read the result.`;

export function addProfileCommand(program: Command): void {
  program
    .command('profile')
    .description('time a training step by kernel and by module, and its memory')
    .argument('[config]', 'run.yaml or the name of a preset (default: the model of the demo)')
    .option('--steps <n>', 'steps to profile', wholeNumber(1, 1000), 5)
    .option('--warmup <n>', 'steps before, which are not profiled', wholeNumber(1, 1000), 2)
    .option('--threads <n>', 'compute threads (default: all cores)', wholeNumber(1, 1024))
    .addOption(new Option('--precision <name>', 'instead of the config’s').choices(['fp32', 'bf16']))
    .option('--batch <n>', 'global batch instead of the config’s; 32 for a preset', wholeNumber(1))
    .option('--lanes <n>', 'lanes instead of the config’s; 1 for a preset', wholeNumber(1))
    .option('--caption-tokens <n>', 'length of every caption (default: the context length)', wholeNumber(3))
    .addOption(engineOption('which engine').default('auto'))
    .option(...SET_OPTION)
    .option('--trace <file>', 'also write a trace for Perfetto or chrome://tracing')
    .option('--top <k>', 'kernels to show', wholeNumber(1), 15)
    .option('--depth <n>', 'levels of the module tree to show', wholeNumber(1), 3)
    .option('--inner', 'also time the ATen operators inside covey’s kernels (engine torch; costs a little)')
    .addHelpText('after', HELP)
    .action(
      runCommand<ProfileOptions>(async (context, [name], options) => {
        const { report, record } = await profile(context, name, options);
        if (options.trace !== undefined) await writeTrace(options.trace, record, report.target, context);
        const { renderProfile } = await import('../profile/render-profile.ts');
        context.output.result(report, context.output.json ? '' : renderProfile(report, context.output, options));
        return EXIT.ok;
      }),
    );
}

async function profile(context: CommandContext, name: string | undefined, options: ProfileOptions) {
  // Only this command needs the numerics: the others must start quickly.
  const { loadEngine } = await import('../../engine/index.ts');
  const { profileTarget } = await import('../profile/profile-target.ts');
  const { runProfile } = await import('../profile/run-profile.ts');
  const engine = await loadEngine({ engine: options.engine, threads: options.threads ?? availableParallelism() });
  const line = new StatusLine(context.output, () => context.clock.now());
  try {
    const { set: sets, ...given } = options;
    const target = await profileTarget(context, name, { ...given, sets, engine: engine.name });
    return await runProfile(engine, target, {
      steps: options.steps,
      warmupSteps: options.warmup,
      captionTokens: options.captionTokens,
      innerOperators: options.inner ?? false,
      signal: context.signal,
      onStep: (done, all) => line.update(`step ${done + 1} of ${all}`),
    });
  } finally {
    line.close();
    engine.close();
  }
}

async function writeTrace(
  file: string,
  record: import('../../engine/profile/record.ts').ProfileRecord,
  target: string,
  context: CommandContext,
): Promise<void> {
  const { chromeTrace } = await import('../../engine/profile/trace.ts');
  const trace = chromeTrace(record, { target });
  try {
    await writeFile(file, JSON.stringify(trace));
  } catch (thrown) {
    throw fromFileError(thrown, 'write', path.resolve(file));
  }
  context.output.message(
    `${path.resolve(file)}: ${trace.traceEvents.length} events; open it at https://ui.perfetto.dev`,
  );
}
