import { Command } from 'commander';

/**
 * What a command's body is given for some arguments: parsed by the command's own options, with their defaults, without running the body. So a test runs the
 * body in its own process.
 */
export async function parsedCommand<Options extends object>(
  add: (program: Command) => void,
  argv: readonly string[],
): Promise<{ readonly args: readonly string[]; readonly options: Options }> {
  const program = new Command('covey').exitOverride().configureOutput({ writeErr: () => undefined });
  add(program);
  let command = program;
  for (const name of argv) {
    const child = command.commands.find((one) => one.name() === name);
    if (child === undefined) break;
    command = child.exitOverride();
  }
  command.action(() => undefined);
  await program.parseAsync(['node', 'covey', ...argv]);
  return { args: command.args, options: command.optsWithGlobals<Options>() };
}
