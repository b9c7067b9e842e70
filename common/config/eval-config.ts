import { z } from 'zod';

/** What is measured while a run trains, besides its loss. */
export const evalSchema = z
  .strictObject({
    health: z
      .strictObject({
        everySteps: z
          .int()
          .min(0)
          .default(50)
          .describe('Steps whose gathered embeddings are measured: spread, effective rank, alignment; 0: none'),
      })
      .prefault({}),
  })
  .prefault({});

export type EvalConfig = z.infer<typeof evalSchema>;
