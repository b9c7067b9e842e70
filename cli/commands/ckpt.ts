import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { HeadStore } from '../../coordinator/head-store.ts';
import { listCheckpoints, pruneCheckpoints, verifyCheckpoint } from '../../worker/checkpoint/checkpoint-registry.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { formatBytes, formatTime } from '../format.ts';
import { wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { type StoredRun, type StoredRunOptions, withStoredRun } from '../stored-run.ts';

/** Blobs younger than this may belong to a checkpoint that is being written. */
const BLOB_GRACE_MS = 60 * 60 * 1000;
const STORE_OPTION = ['--store <url>', 'read this store directly, without a coordinator'] as const;

export function addCkptCommand(program: Command): void {
  const ckpt = program.command('ckpt').description('list, verify and prune checkpoints');
  addList(ckpt);
  addVerify(ckpt);
  addPrune(ckpt);
}

function addList(ckpt: Command): void {
  ckpt
    .command('ls')
    .description('list the checkpoints of a run, oldest first')
    .argument('<run>', 'name of the run')
    .option(...STORE_OPTION)
    .action(
      runCommand<StoredRunOptions>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async ({ store }) => {
          const listed = await listCheckpoints(store, name, context.signal);
          const rows = listed.map((one) => [
            one.step,
            one.generation,
            formatTime(one.createdAtMs / 1000),
            one.manifestKey,
          ]);
          context.output.result(
            listed,
            context.output.table(['step', 'generation', 'written (UTC)', 'manifest'], rows),
          );
          return EXIT.ok;
        }),
      ),
    );
}

function addVerify(ckpt: Command): void {
  ckpt
    .command('verify')
    .description('read every byte of every checkpoint and compare the hashes; exits 1 if one is broken')
    .argument('<run>', 'name of the run')
    .option('--step <n>', 'only the checkpoint of this step', wholeNumber(0))
    .option(...STORE_OPTION)
    .action(
      runCommand<StoredRunOptions & { step?: number }>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async ({ store }) => {
          const listed = await listCheckpoints(store, name, context.signal);
          const chosen = listed.filter((one) => options.step === undefined || one.step === options.step);
          if (chosen.length === 0)
            throw new CoveyError('NOT_FOUND', `Cannot verify: run ${name} has no such checkpoint in ${store.url}`);
          const verified = [];
          for (const one of chosen) verified.push(await verifyCheckpoint(store, one, context.signal));
          const rows = verified.map((one) => [
            one.step,
            one.ok ? 'ok' : 'BROKEN',
            formatBytes(one.bytes),
            one.problem ?? '',
          ]);
          context.output.result(verified, context.output.table(['step', 'state', 'read', 'problem'], rows));
          return verified.every((one) => one.ok) ? EXIT.ok : EXIT.failed;
        }),
      ),
    );
}

function addPrune(ckpt: Command): void {
  ckpt
    .command('prune')
    .description("remove old checkpoints and blobs nobody names; never HEAD's")
    .argument('<run>', 'name of the run')
    .option('--keep <n>', 'how many to keep (default: checkpoint.keepLast of the run)', wholeNumber(1))
    .option('--dry-run', 'only say what would be removed')
    .option(...STORE_OPTION)
    .action(
      runCommand<StoredRunOptions & { keep?: number; dryRun?: boolean }>((context, [name = ''], options) =>
        withStoredRun(context, name, options, async (run) => {
          const dryRun = options.dryRun ?? false;
          const report = await pruneCheckpoints(
            { store: run.store, clock: context.clock },
            name,
            {
              keepLast: options.keep ?? run.config.checkpoint.keepLast,
              protectedKeys: await headManifestKeys(run, context),
              blobGraceMs: BLOB_GRACE_MS,
              dryRun,
            },
            context.signal,
          );
          const { removedCheckpoints, removedBlobs, freedBytes } = report;
          const done = dryRun ? 'would remove' : 'removed';
          const text = `${done} ${removedCheckpoints.length} checkpoints and ${removedBlobs.length} blobs (${formatBytes(freedBytes)})`;
          context.output.result({ ...report, dryRun }, [text, ...removedCheckpoints].join('\n'));
          return EXIT.ok;
        }),
      ),
    );
}

/** The manifests that HEAD names. A run without HEAD protects nothing beyond the newest. */
async function headManifestKeys(run: StoredRun, context: CommandContext): Promise<string[]> {
  const { store, name } = run;
  const head = await new HeadStore(
    { run: name, coordinatorId: 'covey-ckpt-prune' },
    { store, clock: context.clock },
  ).read(context.signal);
  return head?.checkpoints.map((checkpoint) => checkpoint.manifestKey) ?? [];
}
