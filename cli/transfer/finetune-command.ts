import type { CommandContext } from '../context.ts';
import { EXIT, type ExitCode } from '../exit-codes.ts';
import type { FinetuneOptions } from './finetune.ts';
import { TransferSession } from './session.ts';
import { percent } from './task-report.ts';

/** The body of `covey finetune` and `covey adapt`, with what it says at the end. */
export async function runFinetune(
  context: CommandContext,
  source: string,
  options: FinetuneOptions,
): Promise<ExitCode> {
  const { finetune } = await import('./finetune.ts');
  const result = await TransferSession.run(context, options, (session) => finetune(session, source, options));
  context.output.result(
    result,
    [
      `accuracy on the ${result.judgedOn} split ${percent(result.accuracy)} (${result.judged} pictures, ${result.classes} classes)`,
      `trained ${result.trainedParameters} parameters, ${percent(result.trainedShare)} of the backbone; best validation at step ${result.bestStep} of ${result.steps}`,
      ...result.files,
    ].join('\n'),
  );
  return EXIT.ok;
}
