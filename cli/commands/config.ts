import type { Command } from 'commander';
import { stringify } from 'yaml';
import { loadRunConfig } from '../../common/config/load-run-config.ts';
import type { Origin } from '../../common/config/problems.ts';
import { readRunPreset, runPresetNames } from '../../common/config/run-presets.ts';
import { configJsonSchema } from '../../common/config/schema-keys.ts';
import { CoveyError } from '../../common/errors.ts';
import { checkEngineFor } from '../../worker/train/check-engine.ts';
import { checkParameterRules } from '../../worker/train/check-parameters.ts';
import type { CommandContext } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { repeated } from '../option-values.ts';
import { runCommand } from '../run-command.ts';

interface ConfigOptions {
  readonly set?: readonly string[];
  readonly origin?: boolean;
}

export const SET_OPTION = [
  '--set <path=value>',
  'override one value, e.g. --set train.steps=100; repeatable',
  repeated,
] as const;

/** Reads a run's config as every command does: file, then COVEY_RUN__* environment, then --set. */
export function readConfig(context: CommandContext, file: string, sets: readonly string[] = []) {
  return loadRunConfig({ path: file, env: context.env, sets, cwd: process.cwd() });
}

export function addConfigCommand(program: Command): void {
  const config = program.command('config').description('check, show and describe run configurations');
  addValidate(config);
  addShow(config);
  addPresets(config);
  config
    .command('schema')
    .description('print the JSON schema of run.yaml, for editors')
    .action(
      runCommand(async (context) => {
        const schema = configJsonSchema();
        context.output.result(schema, JSON.stringify(schema, null, 2));
        return EXIT.ok;
      }),
    );
}

function addValidate(config: Command): void {
  config
    .command('validate')
    .description('check a run.yaml; every problem is listed with its line; exits 3 if there is one')
    .argument('<file>', 'run.yaml')
    .option(...SET_OPTION)
    .action(
      runCommand<ConfigOptions>(async (context, [file = ''], options) => {
        try {
          const { config: parsed, sha256 } = await readConfig(context, file, options.set);
          checkParameterRules(parsed);
          if (parsed.workers.engine !== 'auto') checkEngineFor(parsed, parsed.workers.engine);
          context.output.result(
            { valid: true, run: parsed.run, sha256, problems: [] },
            `${file} is valid (run ${parsed.run}, sha256 ${sha256.slice(0, 12)})`,
          );
          return EXIT.ok;
        } catch (thrown) {
          if (!context.output.json || !CoveyError.is(thrown, 'CONFIG_INVALID')) throw thrown;
          context.output.result({ valid: false, problems: thrown.fields['problems'] ?? [] }, '');
          return EXIT.configInvalid;
        }
      }),
    );
}

function addPresets(config: Command): void {
  config
    .command('presets')
    .description('list the published recipes that `preset:` of a run.yaml may name, or print one')
    .argument('[name]', 'the recipe to print')
    .action(
      runCommand(async (context, [name]) => {
        if (name !== undefined) {
          const { text, ...preset } = readRunPreset(name);
          context.output.result(preset, text.trimEnd());
          return EXIT.ok;
        }
        const presets = runPresetNames().map((one) => ({ name: one, ...readRunPreset(one).about }));
        const cells = presets.map(({ name: one, title, figures }) => [one, title, figures]);
        context.output.result(presets, context.output.table(['preset', 'what', 'figures at full scale'], cells));
        return EXIT.ok;
      }),
    );
}

function addShow(config: Command): void {
  config
    .command('show')
    .description('print the configuration as it will be used: defaults filled in, overrides applied')
    .argument('<file>', 'run.yaml')
    .option(...SET_OPTION)
    .option('--origin', 'for each value, where it comes from: file, environment, --set or default')
    .action(
      runCommand<ConfigOptions>(async (context, [file = ''], options) => {
        const { config: parsed, origins } = await readConfig(context, file, options.set);
        if (!options.origin) {
          context.output.result(parsed, stringify(parsed).trimEnd());
          return EXIT.ok;
        }
        const rows = leaves(parsed).map(([key, value]) => ({ key, value, origin: originText(origins[key]) }));
        const cells = rows.map((row) => [row.key, JSON.stringify(row.value), row.origin]);
        context.output.result(rows, context.output.table(['key', 'value', 'from'], cells));
        return EXIT.ok;
      }),
    );
}

/** `[path, value]` of everything that is not an object; lists count as one value. */
function leaves(value: unknown, path = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === '' ? key : `${path}.${key}`));
}

/** `run.yaml:12`, `environment COVEY_RUN__…`, `--set …` or `default`. */
function originText(origin: Origin | undefined): string {
  switch (origin?.source) {
    case 'file':
      return `${origin.file}:${origin.line}`;
    case 'env':
      return `environment ${origin.name}`;
    case 'preset':
      return `preset ${origin.name}`;
    case 'set':
      return `--set ${origin.text}`;
    default:
      return 'default';
  }
}
