/** Ways to use a backbone, and not to use one; in the order of the table. */
export const COMPARED = ['scratch', 'probe', 'finetune'] as const;
export type ComparedMethod = (typeof COMPARED)[number];

export const COMPARED_IN_WORDS: Readonly<Record<ComparedMethod, string>> = {
  scratch: 'from scratch',
  probe: 'linear probe',
  finetune: 'fine-tuned',
};
