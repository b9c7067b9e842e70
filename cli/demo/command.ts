import path from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { findNatsServer } from '../../common/nats-server.ts';
import { EXIT } from '../exit-codes.ts';
import { formatDuration } from '../format.ts';
import { portNumber, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { runDemo } from './demo.ts';
import { ICON_SETS, WORKERS_MAX } from './recipe.ts';
import type { DemoSummary } from './summary.ts';

interface DemoCommandOptions {
  readonly minutes: number;
  readonly workers: number;
  readonly holdOut: string;
  readonly kill: boolean;
  readonly seed: number;
  readonly workDir: string;
  readonly port: number;
  readonly httpPort: number;
}

const MINUTES_MIN = 0.1;
const MINUTES_MAX = 24 * 60;

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .description(
      'train a CLIP on real pictures on this machine, kill a worker on the way, judge it by an unseen artist, write a report',
    )
    .option('--minutes <n>', 'how long to train', minutes, 4)
    .option('-n, --workers <n>', 'worker processes', wholeNumber(1, WORKERS_MAX), 2)
    .option('--hold-out <set>', `icon set that is only used for judging: ${ICON_SETS.join(', ')}`, 'fluent-emoji-flat')
    .option('--no-kill', 'let all workers live')
    .option(
      '--seed <n>',
      'of the weights, the order of the pictures and the augmentation',
      wholeNumber(0, 2 ** 32 - 1),
      0,
    )
    .option('--work-dir <folder>', 'where data, checkpoints, logs and reports go', '.covey/demo')
    .option('--port <n>', 'gRPC port of the coordinator; 0: a free one', portNumber, 0)
    .option('--http-port <n>', 'port of /metrics, health and JSON; 0: a free one', portNumber, 0)
    .action(
      runCommand<DemoCommandOptions>(async (context, _args, options) => {
        requireNatsServer();
        const { output } = context;
        if (options.kill && options.workers < 2)
          output.message('a lone worker is not killed: nobody would be left to go on; give --workers 2 or more');
        const summary = await runDemo(
          {
            minutes: options.minutes,
            workers: options.workers,
            heldOut: options.holdOut,
            kill: options.kill && options.workers >= 2,
            seed: options.seed,
            workDir: path.resolve(options.workDir),
            port: options.port,
            httpPort: options.httpPort,
          },
          context,
        );
        output.result(summary, summaryText(summary));
        return EXIT.ok;
      }),
    );
}

/** Said before minutes of rendering, not after. */
function requireNatsServer(): void {
  if (findNatsServer() !== undefined) return;
  throw new CoveyError(
    'NOT_FOUND',
    'Cannot run the demo: there is no nats-server; install it with `apt-get install nats-server` (Debian, Ubuntu) or set COVEY_NATS_SERVER to its path',
    { fields: { command: 'nats-server' } },
  );
}

function summaryText(summary: DemoSummary): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const lines = [
    `zero-shot on ${summary.heldOut}, ${summary.classes} names: ${percent(summary.zeroShotTop1)} at the first guess, ${percent(summary.zeroShotTop5)} among five (chance ${(100 / summary.classes).toFixed(2)} %)`,
    `trained ${formatDuration(summary.trainSeconds)}: ${summary.steps} steps of ${summary.globalBatch}, ${summary.samplesPerSecond.toFixed(0)} images/s, final loss ${summary.finalLoss.toFixed(3)}`,
  ];
  if (summary.killed > 0) {
    const replaced =
      summary.replacedSeconds === null
        ? 'the replacement came too late to take part'
        : `the replacement at work after ${summary.replacedSeconds.toFixed(1)} s`;
    const recovery =
      summary.recoverySeconds === null
        ? 'no step was committed after it'
        : `next step committed after ${summary.recoverySeconds.toFixed(1)} s`;
    lines.push(`one worker killed: ${recovery}, ${replaced}`);
  }
  lines.push(
    `samples lost ${summary.samplesLost}, doubled ${summary.samplesDuplicated}, of ${summary.samplesPlanned} planned`,
    `report: ${summary.report}`,
  );
  return lines.join('\n');
}

function minutes(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= MINUTES_MIN && value <= MINUTES_MAX) return value;
  throw new InvalidArgumentError(`must be a number of minutes from ${MINUTES_MIN} to ${MINUTES_MAX}.`);
}
