import path from 'node:path';
import type { Command } from 'commander';
import { EXIT } from '../exit-codes.ts';
import { runCommand } from '../run-command.ts';
import { addBackboneOptions, BACKBONE_ARGUMENT } from '../transfer/backbone-options.ts';
import { addLabelOptions } from '../transfer/label-options.ts';
import type { ProbeOptions } from '../transfer/probe.ts';
import { addComputeOptions, TransferSession } from '../transfer/session.ts';
import { percent } from '../transfer/task-report.ts';

export function addProbeCommand(program: Command): void {
  const command = program
    .command('probe')
    .description('fit a linear classifier on a backbone’s frozen features, to its optimum, and kNN beside it')
    .argument('<backbone>', BACKBONE_ARGUMENT)
    .requiredOption('-o, --out <folder>', 'features, classifier and report; run again to go on after an interruption');
  addComputeOptions(addBackboneOptions(addLabelOptions(command))).action(
    runCommand<ProbeOptions>(async (context, [source = ''], options) => {
      const { probe } = await import('../transfer/probe.ts');
      const result = await TransferSession.run(context, options, (session) => probe(session, source, options));
      context.output.result(
        result,
        [
          `accuracy on the ${result.judgedOn} split ${percent(result.accuracy)} (${result.judged} pictures, ${result.classes} classes); kNN ${percent(result.knnAccuracy)}`,
          `λ ${result.l2.toExponential(1)}, gradient norm ${result.gradientNorm.toExponential(1)} (${result.gradientNormRelative.toExponential(1)} relative) after ${result.iterations} iterations`,
          path.join(options.out, 'report.html'),
        ].join('\n'),
      );
      return EXIT.ok;
    }),
  );
}
