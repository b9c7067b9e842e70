import type { Command } from 'commander';
import {
  checkDevices,
  checkDisk,
  checkEngines,
  checkEnvironment,
  checkNats,
  checkNode,
  checkPort,
  checkStore,
  type DoctorCheck,
} from '../doctor-checks.ts';
import { EXIT } from '../exit-codes.ts';
import { storeUrl } from '../local-paths.ts';
import { runCommand } from '../run-command.ts';

interface DoctorOptions {
  readonly store?: string;
}

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description(
      'check what covey needs on this machine, and say which command mends what is missing; exits 5 if something fails',
    )
    .option('--store <url>', 'also check this store: write, read, range, conditional write (default: COVEY_STORE)')
    .action(
      runCommand<DoctorOptions>(async (context, _args, options) => {
        const store = options.store ?? context.env['COVEY_STORE'];
        const checks: DoctorCheck[] = [
          checkNode(),
          ...(await checkEngines()),
          checkDevices(),
          await checkNats(context),
          await checkDisk(),
          await checkPort(7070, 'coordinator (gRPC)'),
          await checkPort(7071, 'coordinator (http)'),
          ...checkEnvironment(context.env),
          ...(store === undefined ? [] : [await checkStore(storeUrl(store), context)]),
        ];
        const { colors } = context.output;
        const marks = { ok: colors.green('ok  '), warn: colors.yellow('warn'), fail: colors.red('FAIL') };
        const lines = checks.flatMap((one) => [
          `${marks[one.state]}  ${one.name}: ${one.found}`,
          ...(one.state !== 'ok' && one.mend ? [`      ${one.mend}`] : []),
        ]);
        context.output.result({ ok: checks.every((one) => one.state !== 'fail'), checks }, lines.join('\n'));
        return checks.some((one) => one.state === 'fail') ? EXIT.precondition : EXIT.ok;
      }),
    );
}
