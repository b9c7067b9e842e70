#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { DEFAULT_COORDINATOR } from './context.ts';
import { EXIT, EXIT_CODES_HELP } from './exit-codes.ts';
import { packageVersion } from './package-version.ts';

type AddCommand = (program: Command) => void;

/** Loaded only when named: a command for people must not wait for the numerics of another. In the order of --help. */
const COMMANDS: Readonly<Record<string, () => Promise<AddCommand>>> = {
  demo: async () => (await import('./demo/command.ts')).addDemoCommand,
  up: async () => (await import('./commands/up.ts')).addUpCommand,
  launch: async () => (await import('./commands/launch.ts')).addLaunchCommand,
  ps: async () => (await import('./commands/ps.ts')).addPsCommand,
  status: async () => (await import('./commands/status.ts')).addStatusCommand,
  logs: async () => (await import('./commands/logs.ts')).addLogsCommand,
  stop: async () => (await import('./commands/stop.ts')).addStopCommand,
  resume: async () => (await import('./commands/resume.ts')).addResumeCommand,
  pack: async () => (await import('./commands/pack.ts')).addPackCommand,
  ckpt: async () => (await import('./commands/ckpt.ts')).addCkptCommand,
  eval: async () => (await import('./commands/eval.ts')).addEvalCommand,
  import: async () => (await import('./commands/import.ts')).addImportCommand,
  zeroshot: async () => (await import('./commands/zeroshot.ts')).addZeroShotCommand,
  prompts: async () => (await import('./commands/prompts.ts')).addPromptsCommand,
  embed: async () => (await import('./commands/embed.ts')).addEmbedCommand,
  probe: async () => (await import('./commands/probe.ts')).addProbeCommand,
  finetune: async () => (await import('./commands/finetune.ts')).addFinetuneCommand,
  compare: async () => (await import('./commands/compare.ts')).addCompareCommand,
  adapt: async () => (await import('./commands/adapt.ts')).addAdaptCommand,
  domain: async () => (await import('./commands/domain.ts')).addDomainCommand,
  adapter: async () => (await import('./commands/adapter.ts')).addAdapterCommand,
  export: async () => (await import('./commands/export.ts')).addExportCommand,
  'verify-export': async () => (await import('./commands/verify-export.ts')).addVerifyExportCommand,
  augment: async () => (await import('./commands/augment.ts')).addAugmentCommand,
  profile: async () => (await import('./commands/profile.ts')).addProfileCommand,
  config: async () => (await import('./commands/config.ts')).addConfigCommand,
  doctor: async () => (await import('./commands/doctor.ts')).addDoctorCommand,
  coordinator: async () => (await import('./commands/coordinator.ts')).addCoordinatorCommand,
  worker: async () => (await import('./commands/worker.ts')).addWorkerCommand,
};

/** The commands that occur among the arguments; all of them where none does (--help, a misspelt name). */
function loadCommands(given: readonly string[]): Promise<AddCommand[]> {
  const named = Object.keys(COMMANDS).filter((name) => given.includes(name));
  return Promise.all((named.length > 0 ? named : Object.keys(COMMANDS)).map((name) => COMMANDS[name]!()));
}

function buildProgram(adders: readonly AddCommand[]): Command {
  const program = new Command('covey');
  program
    .description('Distributed contrastive pretraining: one coordinator, any number of workers, an object store.')
    .version(packageVersion())
    .option('--json', 'machine-readable output: only JSON on stdout')
    .option('--no-color', 'no colours (also: NO_COLOR)')
    .option('-q, --quiet', 'no progress and no messages, only results and errors')
    .option('--coordinator <host:port>', `where the coordinator is (COVEY_COORDINATOR; default ${DEFAULT_COORDINATOR})`)
    .addHelpText('after', EXIT_CODES_HELP)
    .showHelpAfterError('(covey --help, or covey COMMAND --help)')
    .exitOverride();
  for (const add of adders) add(program);
  inheritExitOverride(program);
  return program;
}

/** commander copies exitOverride only to commands made by `program.command()` after it was set; ours may nest. */
function inheritExitOverride(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride();
    inheritExitOverride(child);
  }
}

// A reader that has seen enough (`covey ps | head`) is not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

try {
  await buildProgram(await loadCommands(process.argv.slice(2))).parseAsync(process.argv);
} catch (thrown) {
  if (!(thrown instanceof CommanderError)) throw thrown;
  // Help and --version are not failures; everything else that commander refuses is wrong use.
  process.exitCode = thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
}
