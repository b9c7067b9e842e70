/** Judges ensembles that grow by one template at a time. */
export interface EnsembleScorer {
  /** Accuracy on the pictures to choose by of the ensemble so far with one template more. */
  accuracyWith(template: number): Promise<number>;
  /** Takes a template into the ensemble. @returns its accuracy on the pictures to judge by, which the search does not look at */
  take(template: number): Promise<number>;
}

export interface SearchStep {
  /** Index of the template that was added. */
  readonly template: number;
  /** Of the ensemble with it. */
  readonly searchAccuracy: number;
  readonly judgedAccuracy: number;
}

export interface EnsembleSearch {
  readonly steps: readonly SearchStep[];
  /** Templates of the ensemble that was chosen: the first `size` of the steps. */
  readonly size: number;
}

export interface SearchOptions {
  readonly templates: number;
  /** Steps at most. */
  readonly sizeMax: number;
  readonly onTrial?: ((done: number, total: number) => void) | undefined;
}

/**
 * Forward selection of an ensemble (Caruana et al. 2004, without replacement): always the template that helps most, also where none helps, until there are
 * `sizeMax`; then the prefix of highest accuracy is chosen, of equals the shortest. A tie goes to the template that comes first.
 */
export async function searchEnsemble(options: SearchOptions, scorer: EnsembleScorer): Promise<EnsembleSearch> {
  const { templates, onTrial } = options;
  const size = Math.min(options.sizeMax, templates);
  const trials = size * templates - (size * (size - 1)) / 2;
  const left = new Set(Array.from({ length: templates }, (_, t) => t));
  const steps: SearchStep[] = [];
  let done = 0;
  while (steps.length < size) {
    let best: { template: number; searchAccuracy: number } | undefined;
    for (const template of left) {
      const searchAccuracy = await scorer.accuracyWith(template);
      if (best === undefined || searchAccuracy > best.searchAccuracy) best = { template, searchAccuracy };
      onTrial?.(++done, trials);
    }
    const { template, searchAccuracy } = best!;
    left.delete(template);
    steps.push({ template, searchAccuracy, judgedAccuracy: await scorer.take(template) });
  }
  const highest = Math.max(...steps.map(({ searchAccuracy }) => searchAccuracy));
  return { steps, size: steps.findIndex(({ searchAccuracy }) => searchAccuracy === highest) + 1 };
}
