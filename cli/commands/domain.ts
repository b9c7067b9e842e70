import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import type { DomainOptions } from '../transfer/domain.ts';
import { addAdaptationOptions } from '../transfer/domain-options.ts';
import { addHeadOptions } from '../transfer/head-options.ts';
import { addLabelChoices } from '../transfer/label-options.ts';
import { addComputeOptions, TransferSession } from '../transfer/session.ts';
import { percent } from '../transfer/task-report.ts';
import { addTuneOptions } from '../transfer/tune-options.ts';

export function addDomainCommand(program: Command): void {
  const command = program
    .command('domain')
    .description(
      'adapt a backbone to a domain without labels, from one with labels; run again to go on after an interruption',
    )
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('-o, --out <folder>', 'progress, weights and report');
  addTuneOptions(addLabelChoices(addAdaptationOptions(command)), { lr: 1e-3, headSteps: 'fifth' });
  addHeadOptions(command);
  addComputeOptions(addBackboneOptions(command)).action(
    runCommand<DomainOptions>(async (context, [source = ''], options) => {
      const { domain } = await import('../transfer/domain.ts');
      const result = await TransferSession.run(context, options, (session) => domain(session, source, options));
      const { domainAccuracy: told, proxyADistance: apart } = result;
      const shown = (value: number | null) => (value === null ? '–' : percent(value));
      context.output.result(
        result,
        [
          `source validation ${percent(result.sourceAccuracy)} (${result.sourceValidation} pictures, ${result.classes} classes)`,
          ...result.judged.map(({ on, accuracy, pictures }) => `${on} ${percent(accuracy)} (${pictures} pictures)`),
          `domains told apart ${shown(told.before)} before, ${shown(told.after)} after (50 % is chance); proxy A-distance ${apart.before?.toFixed(2) ?? '–'} before, ${apart.after?.toFixed(2) ?? '–'} after`,
          `kept step ${result.bestStep} of ${result.steps}`,
          ...result.files,
        ].join('\n'),
      );
      return EXIT.ok;
    }),
  );
}
